from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sensor_msgs")
cv_bridge = pytest.importorskip("cv_bridge")

from cv_bridge import CvBridge, CvBridgeError
from sensor_msgs.msg import Image

BRIDGE = CvBridge()


def image_of(encoding: str, pixels: np.ndarray) -> Image:
    height, width = pixels.shape[:2]
    image = Image(height=height, width=width, encoding=encoding, step=pixels.nbytes // height)
    image.data.frombytes(pixels.tobytes())
    return image


@pytest.mark.parametrize(
    ("encoding", "dtype", "channels"),
    [
        ("mono8", np.uint8, 1),
        ("8UC1", np.uint8, 1),
        ("bayer_rggb8", np.uint8, 1),
        ("mono16", np.uint16, 1),
        ("16UC1", np.uint16, 1),
        ("16SC1", np.int16, 1),
        ("32FC1", np.float32, 1),
        ("64FC2", np.float64, 2),
        ("yuv422", np.uint8, 2),
        ("8UC3", np.uint8, 3),
        ("bgr8", np.uint8, 3),
        ("rgb8", np.uint8, 3),
        ("bgr16", np.uint16, 3),
        ("bgra8", np.uint8, 4),
    ],
)
def test_passthrough_gives_the_pixels(encoding, dtype, channels):
    shape = (2, 3) if channels == 1 else (2, 3, channels)
    pixels = np.arange(1, 1 + np.prod(shape)).reshape(shape).astype(dtype)
    array = BRIDGE.imgmsg_to_cv2(image_of(encoding, pixels))
    np.testing.assert_array_equal(array, pixels)
    assert array.dtype == dtype
    assert BRIDGE.encoding_to_dtype_with_channels(encoding) == (np.dtype(dtype).name, channels)


@pytest.mark.parametrize(
    ("encoding", "pixel", "desired", "expected"),
    [
        ("rgb8", [10, 20, 30], "bgr8", [30, 20, 10]),
        ("bgr8", [10, 20, 30], "bgr8", [10, 20, 30]),
        ("bgr8", [10, 20, 30], "rgb8", [30, 20, 10]),
        ("bgra8", [10, 20, 30, 40], "bgr8", [10, 20, 30]),
        ("rgba8", [10, 20, 30, 40], "bgr8", [30, 20, 10]),
        ("mono8", 7, "bgr8", [7, 7, 7]),
        ("bgr8", [100, 100, 100], "mono8", 100),
        ("yuv422", [128, 90], "bgr8", [86, 86, 86]),  # 255 / 219 (90 - 16): luma spans 16 to 235
        ("yuv422_yuy2", [90, 128], "bgr8", [86, 86, 86]),
    ],
)
def test_colour_conversions(encoding, pixel, desired, expected):
    pixels = np.tile(np.array(pixel, dtype=np.uint8), (2, 2) + (1,) * np.ndim(pixel))
    array = BRIDGE.imgmsg_to_cv2(image_of(encoding, pixels), desired)
    np.testing.assert_allclose(array, np.broadcast_to(expected, array.shape), atol=1)
    assert array.shape == (2, 2, *np.shape(expected))


@pytest.mark.parametrize(
    ("encoding", "values", "desired", "expected"),
    [
        ("mono16", [0, 257, 32896, 65535], "mono8", [0, 1, 128, 255]),
        ("mono16", [0, 257, 32896, 65535], "bgr8", [0, 1, 128, 255]),
        ("mono8", [0, 1, 128, 255], "mono16", [0, 257, 32896, 65535]),
    ],
)
def test_upstream_scales_between_8_and_16_bits(encoding, values, desired, expected):
    pixels = np.array([values], dtype=np.uint16 if encoding.endswith("16") else np.uint8)
    array = BRIDGE.imgmsg_to_cv2(image_of(encoding, pixels), desired)
    np.testing.assert_array_equal(array.reshape(4, -1)[:, 0], expected)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_are_named_as_in_ros(pattern, bits):
    """A scene that is red all over lights only the pixels under red filters."""
    red = np.array([[letter == "r" for letter in row] for row in (pattern[:2], pattern[2:])])
    dtype = np.uint8 if bits == 8 else np.uint16
    pixels = np.tile(np.where(red, np.iinfo(dtype).max, 0).astype(dtype), (8, 8))
    array = BRIDGE.imgmsg_to_cv2(image_of(f"bayer_{pattern}{bits}", pixels), "bgr8")
    assert array[4:-4, 4:-4].reshape(-1, 3).mean(axis=0) == pytest.approx([0, 0, 255])


@pytest.mark.parametrize(
    ("encoding", "desired"),
    [("8UC3", "bgr8"), ("16UC1", "mono8"), ("32FC1", "bgr8"), ("bgr8", "unheard_of"), ("bgr8", "bayer_rggb8")],
)
def test_upstream_refuses_conversions_without_meaning(encoding, desired):
    dtype, shape = {"8UC3": ("u1", (2, 2, 3)), "16UC1": ("u2", (2, 2)), "32FC1": ("f4", (2, 2))}.get(
        encoding, ("u1", (2, 2, 3))
    )
    with pytest.raises(CvBridgeError):
        BRIDGE.imgmsg_to_cv2(image_of(encoding, np.zeros(shape, dtype)), desired)


def test_malformed_messages_are_refused():
    short = image_of("bgr8", np.zeros((2, 2, 3), np.uint8))
    short.height = 3
    with pytest.raises(TypeError):  # CvBridgeError is one
        BRIDGE.imgmsg_to_cv2(short)
    with pytest.raises(CvBridgeError, match="unheard_of"):
        BRIDGE.imgmsg_to_cv2(image_of("unheard_of", np.zeros((2, 2), np.uint8)))
