from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sensor_msgs.msg", reason="needs the ROS environment that `make test` makes")

from sensor_msgs.msg import CameraInfo, RegionOfInterest

from bevformer_ros.ros.calibration import UncalibratedError, camera_model

K = [100.0, 0.0, 31.5, 0.0, 110.0, 23.5, 0.0, 0.0, 1.0]
P = [90.0, 0.0, 30.0, 0.0, 0.0, 95.0, 20.0, 0.0, 0.0, 0.0, 1.0, 0.0]


def info_of(**fields):
    info = CameraInfo(width=64, height=48, k=K, p=P, distortion_model="plumb_bob", d=[0.0] * 5)
    info.header.frame_id = "cam_optical"
    for name, value in fields.items():
        setattr(info, name, value)
    return info


def test_plain_calibration():
    intrinsics, distortion = camera_model(info_of(), (64, 48), rectified=False)
    assert np.array_equal(intrinsics, np.reshape(K, (3, 3)))
    assert distortion.shape == (0,)


def test_rectified_takes_p_and_no_distortion():
    intrinsics, distortion = camera_model(info_of(d=[0.1, 0.0, 0.0, 0.0, 0.0]), (64, 48), rectified=True)
    assert np.array_equal(intrinsics, np.reshape(P, (3, 4))[:, :3])
    assert distortion.shape == (0,)


@pytest.mark.parametrize(("model", "count"), [("plumb_bob", 5), ("plumb_bob", 4), ("rational_polynomial", 8)])
def test_distortion_is_handed_on(model, count):
    coefficients = np.linspace(0.1, 0.2, count).tolist()
    _, distortion = camera_model(info_of(distortion_model=model, d=coefficients), (64, 48), rectified=False)
    assert np.array_equal(distortion, coefficients)


def test_binning_and_region_keep_rays():
    """A ray's pixel in the binned, cropped image is the mean of the full pixels that it covers."""
    region = RegionOfInterest(x_offset=8, y_offset=4, width=32, height=24)
    info = info_of(binning_x=2, binning_y=4, roi=region)
    intrinsics, _ = camera_model(info, (16, 6), rectified=False)
    full_pixels = np.array([[8 + 2 * 3 + 0.5, 4 + 4 * 2 + 1.5, 1.0]])  # binned pixel (3, 2)
    ray = full_pixels @ np.linalg.inv(np.reshape(K, (3, 3))).T
    assert np.allclose(ray @ intrinsics.T, [[3, 2, 1]])


def test_an_unset_size_is_not_checked():
    camera_model(info_of(width=0, height=0), (7, 5), rectified=False)


@pytest.mark.parametrize(
    ("fields", "size", "error", "message"),
    [
        ({"k": [0.0] * 9}, (64, 48), UncalibratedError, "k of 'cam_optical' is all zero; calibrate"),
        ({}, (32, 24), ValueError, "image of 32 x 24 pixels, but the CameraInfo of 'cam_optical' describes 64 x 48"),
        ({"distortion_model": "equidistant", "d": [0.1] * 4}, (64, 48), ValueError, "'equidistant'.*rectified: true"),
        ({"d": [0.1] * 3}, (64, 48), ValueError, "has 3 coefficients"),
    ],
)
def test_wrong_calibration_is_refused(fields, size, error, message):
    with pytest.raises(error, match=message):
        camera_model(info_of(**fields), size, rectified=False)
