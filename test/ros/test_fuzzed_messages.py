"""Whatever a message says, reading it ends in an image, a calibration or a ValueError, soon and without much memory."""

from __future__ import annotations

from contextlib import suppress

import cv2
import numpy as np
import pytest

pytest.importorskip("sensor_msgs.msg", reason="needs the ROS environment that `make test` makes")

from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from support import memory_growth_below

from bevformer_ros.ros.calibration import ImplausibleDistortionError, camera_model
from bevformer_ros.ros.image_decoding import MAXIMUM_PIXELS, decode_image, image_size

PICTURE = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
FILES = [cv2.imencode(extension, PICTURE)[1].tobytes() for extension in (".jpg", ".png")]
ENCODINGS = ["bgr8", "rgba8", "mono8", "bayer_rggb8", "yuv422", "mono16", "8UC3", "32FC1", "nonsense", ""]
ANY_FLOAT = st.floats(width=64)
QUICK = settings(max_examples=100, deadline=2000)


def decoded(message):
    try:
        with memory_growth_below(allowed_mebibytes(message)):
            image = decode_image(message)
    except ValueError:
        return
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    assert 0 < image.shape[0] * image.shape[1] <= MAXIMUM_PIXELS


def allowed_mebibytes(message):
    """For the image that the header describes, as it is decoded and while its colours are converted; else for none."""
    try:
        width, height = image_size(message)
    except ValueError:
        return 10
    return 10 + 2 * 4 * width * height / 2**20


@QUICK
@given(
    encoding=st.sampled_from(ENCODINGS) | st.text(max_size=8),
    width=st.integers(0, 40) | st.integers(0, 2**32 - 1),
    height=st.integers(0, 40) | st.integers(0, 2**32 - 1),
    step=st.integers(0, 200) | st.integers(0, 2**32 - 1),
    big=st.integers(0, 1),
    data=st.binary(max_size=4000),
)
def test_raw_images(encoding, width, height, step, big, data):
    decoded(Image(encoding=encoding, width=width, height=height, step=step, is_bigendian=big, data=data))


@QUICK
@given(
    file=st.sampled_from(FILES),
    changes=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=6),
    end=st.integers(0, 3000),
    form=st.sampled_from(["jpeg", "png", "bayer_rggb8; png compressed", "32FC1; compressedDepth", "rgb8; jpeg"]),
)
def test_damaged_files(file, changes, end, form):
    data = bytearray(file)
    for position, value in changes:
        data[position % len(data)] = value
    decoded(CompressedImage(format=form, data=bytes(data) if end > 1500 else bytes(data[:end])))


@QUICK
@given(start=st.sampled_from([b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n"]), data=st.binary(max_size=300), form=st.text())
def test_files_of_noise(start, data, form):
    decoded(CompressedImage(format=form, data=start + data))
    decoded(CompressedImage(format="jpeg", data=start + data + b"\xff\xd9"))


@QUICK
@given(
    k=st.lists(ANY_FLOAT, min_size=9, max_size=9),
    p=st.lists(ANY_FLOAT, min_size=12, max_size=12),
    d=st.lists(ANY_FLOAT, max_size=14),
    model=st.sampled_from(["", "plumb_bob", "rational_polynomial", "equidistant"]) | st.text(max_size=5),
    numbers=st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 4), min_size=8, max_size=8),
    rectified=st.booleans(),
)
def test_camera_infos(k, p, d, model, numbers, rectified):
    width, height, binning_x, binning_y, *region = numbers
    names = ("x_offset", "y_offset", "width", "height")
    info = CameraInfo(width=width, height=height, k=k, p=p, d=d, distortion_model=model)
    info.binning_x, info.binning_y, info.roi = (
        binning_x,
        binning_y,
        RegionOfInterest(**dict(zip(names, region, strict=True))),
    )
    try:
        with memory_growth_below(10):
            intrinsics, lens = camera_model(info, (64, 48), rectified)
    except ValueError:
        return
    assert np.isfinite(intrinsics).all() and np.isfinite(lens.coefficients).all()
    assert intrinsics[0, 0] > 0 and intrinsics[1, 1] > 0


@QUICK
@given(
    d=st.lists(st.floats(-5, 5), min_size=5, max_size=5),
    fx=st.floats(10, 200),
    cx=st.floats(1, 63),
)
def test_plausible_camera_infos_never_break(d, fx, cx):
    info = CameraInfo(width=64, height=48, k=[fx, 0.0, cx, 0.0, fx, 24.0, 0.0, 0.0, 1.0], d=d)
    info.distortion_model = "plumb_bob"
    with suppress(ImplausibleDistortionError):
        camera_model(info, (64, 48), rectified=False)
