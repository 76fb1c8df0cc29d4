from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("sensor_msgs.msg", reason="needs the ROS environment that `make test` makes")

from sensor_msgs.msg import CameraInfo, RegionOfInterest

from bevformer_ros.lens import PINHOLE, Lens
from bevformer_ros.ros.calibration import UncalibratedError, WrongImageSizeError, camera_model

K = [100.0, 0.0, 31.5, 0.0, 110.0, 23.5, 0.0, 0.0, 1.0]
P = [90.0, 0.0, 30.0, 0.0, 0.0, 95.0, 20.0, 0.0, 0.0, 0.0, 1.0, 0.0]


def matrix(fx=K[0], fy=K[4], cx=K[2], cy=K[5]):
    return [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0]


def info_of(**fields):
    info = CameraInfo(width=64, height=48, k=K, p=P, distortion_model="plumb_bob", d=[0.0] * 5)
    info.header.frame_id = "cam_optical"
    for name, value in fields.items():
        setattr(info, name, value)
    return info


def test_plain_calibration():
    intrinsics, lens = camera_model(info_of(), (64, 48), rectified=False)
    assert np.array_equal(intrinsics, np.reshape(K, (3, 3)))
    assert lens == PINHOLE


def test_rectified_takes_p_and_no_distortion():
    intrinsics, lens = camera_model(info_of(d=[0.1, 0.0, 0.0, 0.0, 0.0]), (64, 48), rectified=True)
    assert np.array_equal(intrinsics, np.reshape(P, (3, 4))[:, :3])
    assert lens == PINHOLE


@pytest.mark.parametrize(
    ("model", "count"), [("plumb_bob", 5), ("plumb_bob", 4), ("rational_polynomial", 8), ("equidistant", 4)]
)
def test_distortion_is_handed_on(model, count):
    coefficients = np.linspace(0.1, 0.2, count).tolist()
    _, lens = camera_model(info_of(distortion_model=model, d=coefficients), (64, 48), rectified=False)
    assert lens == Lens(model, tuple(coefficients))


def test_binning_and_region_keep_rays():
    """A ray's pixel in the binned, cropped image is the mean of the full pixels that it covers."""
    region = RegionOfInterest(x_offset=8, y_offset=4, width=32, height=24)
    info = info_of(binning_x=2, binning_y=4, roi=region)
    intrinsics, _ = camera_model(info, (16, 6), rectified=False)
    full_pixels = np.array([[8 + 2 * 3 + 0.5, 4 + 4 * 2 + 1.5, 1.0]])  # binned pixel (3, 2)
    ray = full_pixels @ np.linalg.inv(np.reshape(K, (3, 3))).T
    assert np.allclose(ray @ intrinsics.T, [[3, 2, 1]])


def test_an_unset_size_is_not_checked():
    camera_model(info_of(width=0, height=0), (62, 46), rectified=False)


@pytest.mark.parametrize(
    ("fields", "size", "error", "message"),
    [
        ({"k": [0.0] * 9}, (64, 48), UncalibratedError, "k of 'cam_optical' is all zero; calibrate"),
        (
            {},
            (32, 24),
            WrongImageSizeError,
            "image of 32 x 24 .* describes 64 x 48",
        ),
        ({"distortion_model": "omnidirectional"}, (64, 48), ValueError, "'omnidirectional'.*rectified: true"),
        ({"d": [0.1] * 3}, (64, 48), ValueError, "has 3 coefficients"),
        ({"distortion_model": "equidistant", "d": []}, (64, 48), ValueError, "0 coefficients of a lens equidistant"),
        ({"distortion_model": "equidistant", "d": [-9.0, 0.0, 0.0, 0.0]}, (64, 48), ValueError, "folds the image"),
        ({"k": matrix(fx=math.nan)}, (64, 48), ValueError, "k of 'cam_optical' holds nan"),
        ({"k": matrix(cx=math.inf)}, (64, 48), ValueError, "holds inf"),
        ({"k": matrix(fx=1e-300)}, (64, 48), ValueError, "fx = 1e-300 pixels, expected 3.2 to 1280 .* 64 x 48"),
        ({"k": matrix(fy=-110.0)}, (64, 48), ValueError, "fy = -110"),
        ({"k": matrix(cx=65.0)}, (64, 48), ValueError, "principal point at 65, 23.5, outside"),
        ({"k": [*K[:8], 0.0]}, (64, 48), ValueError, "last row"),
        ({"d": [math.nan, 0.0, 0.0, 0.0, 0.0]}, (64, 48), ValueError, "d of 'cam_optical' holds nan"),
        ({"d": [-9.0, 0.0, 0.0, 0.0, 0.0]}, (64, 48), ValueError, "folds the image"),
        ({"d": [1e300, 0.0, 0.0, 0.0, 0.0]}, (64, 48), ValueError, "holds 1e\\+300"),
    ],
)
def test_wrong_calibration_is_refused(fields, size, error, message):
    with pytest.raises(error, match=message):
        camera_model(info_of(**fields), size, rectified=False)


@pytest.mark.parametrize(
    "coefficients",
    [
        [-0.35, 0.12, 0.001, -0.002, 0.0],  # a common lens of 90 degrees
        [-0.28, 0.07, 0.0002, 0.00002, 0.0],
        [8.0, 5.5, 0.0, 0.0, 0.3, 8.4, 8.5, 1.6],  # rational, as OAK cameras have it
    ],
)
def test_distortion_of_real_lenses_passes(coefficients):
    wide = [700.0, 0.0, 640.0, 0.0, 700.0, 400.0, 0.0, 0.0, 1.0]
    model = "rational_polynomial" if len(coefficients) == 8 else "plumb_bob"
    info = info_of(width=1280, height=800, k=wide, d=coefficients, distortion_model=model)
    camera_model(info, (1280, 800), rectified=False)


@pytest.mark.parametrize("coefficients", [[0.0] * 4, [-0.02, 0.004, -0.003, 0.0005]])
def test_fisheyes_pass(coefficients):
    """190 degrees across 1280 pixels; without coefficients it is an ideal one, and no pinhole."""
    wide = [386.0, 0.0, 640.0, 0.0, 386.0, 480.0, 0.0, 0.0, 1.0]
    info = info_of(width=1280, height=960, k=wide, d=coefficients, distortion_model="equidistant")
    _, lens = camera_model(info, (1280, 960), rectified=False)
    assert lens == Lens("equidistant", tuple(coefficients))
    assert not lens.is_pinhole
