from __future__ import annotations

import cv2
import numpy as np
import pytest

pytest.importorskip("sensor_msgs")
cv_bridge = pytest.importorskip("cv_bridge")

from cv_bridge import CvBridge, CvBridgeError
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

BRIDGE = CvBridge()


def message(encoding: str, rows: np.ndarray, width: int, big_endian: bool = False) -> Image:
    """An image whose rows are given as bytes (height, step)."""
    image = Image(height=rows.shape[0], width=width, encoding=encoding, is_bigendian=big_endian, step=rows.shape[1])
    image.data.frombytes(np.ascontiguousarray(rows).tobytes())
    return image


def image_of(encoding: str, pixels: np.ndarray) -> Image:
    return message(encoding, pixels.view(np.uint8).reshape(pixels.shape[0], -1), pixels.shape[1])


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
def test_passthrough_gives_the_pixels_and_back(encoding, dtype, channels):
    shape = (2, 3) if channels == 1 else (2, 3, channels)
    pixels = np.arange(1, 1 + np.prod(shape)).reshape(shape).astype(dtype)
    array = BRIDGE.imgmsg_to_cv2(image_of(encoding, pixels))
    np.testing.assert_array_equal(array, pixels)
    assert array.dtype == dtype

    back = BRIDGE.cv2_to_imgmsg(array, encoding, Header(frame_id="camera"))
    assert (back.encoding, back.header.frame_id, back.step) == (encoding, "camera", 3 * channels * array.itemsize)
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(back), pixels)


@pytest.mark.parametrize(("encoding", "channels"), [("mono8", 1), ("bgr8", 3)])
def test_padding_at_the_end_of_rows_is_left_out(encoding, channels):
    rows = np.arange(2 * (3 * channels + 5), dtype=np.uint8).reshape(2, -1)
    array = BRIDGE.imgmsg_to_cv2(message(encoding, rows, width=3))
    np.testing.assert_array_equal(array.reshape(2, -1), rows[:, : 3 * channels])
    assert array.flags.c_contiguous


@pytest.mark.parametrize("padding", [0, 2])
def test_big_endian_images_come_in_the_machines_byte_order(padding):
    values = np.array([[1, 256], [515, 65535]], dtype=np.uint16)
    rows = np.pad(values.astype(">u2").view(np.uint8), ((0, 0), (0, padding)))
    array = BRIDGE.imgmsg_to_cv2(message("mono16", rows, width=2, big_endian=True))
    np.testing.assert_array_equal(array, values)
    assert array.dtype.isnative


def test_unpadded_images_are_not_copied():
    image = image_of("bgr8", np.zeros((2, 3, 3), np.uint8))
    array = BRIDGE.imgmsg_to_cv2(image)
    image.data[0] = 77
    assert array[0, 0, 0] == 77


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


@pytest.mark.parametrize(("extension", "tolerance"), [(".png", 0), (".jpg", 3)])
def test_compressed_images(extension, tolerance):
    pixels = np.full((16, 24, 3), (40, 90, 160), np.uint8)
    image = CompressedImage(format=extension[1:])
    image.data.frombytes(cv2.imencode(extension, pixels)[1].tobytes())
    np.testing.assert_allclose(BRIDGE.compressed_imgmsg_to_cv2(image).astype(int), pixels, atol=tolerance)
    rgb = BRIDGE.compressed_imgmsg_to_cv2(image, "rgb8")
    np.testing.assert_allclose(rgb.astype(int), pixels[..., ::-1], atol=tolerance)


@pytest.mark.parametrize("data", [b"", b"no image"])
def test_what_cannot_be_decoded_is_refused(data):
    image = CompressedImage(format="jpeg")
    image.data.frombytes(data)
    with pytest.raises(CvBridgeError, match=f"{len(data)} bytes of format 'jpeg'"):
        BRIDGE.compressed_imgmsg_to_cv2(image)


def test_a_message_from_an_array_names_its_type_and_checks_a_given_encoding():
    array = np.zeros((4, 6, 3), np.uint8)[::2, ::2]
    image = BRIDGE.cv2_to_imgmsg(array)
    assert (image.encoding, image.height, image.width, image.step, len(image.data)) == ("8UC3", 2, 3, 9, 18)
    assert BRIDGE.cv2_to_imgmsg(array, "bgr8").encoding == "bgr8"
    for wrong in ("mono8", "bgr16", "32FC3"):
        with pytest.raises(CvBridgeError, match=f"{wrong}.*8UC3"):
            BRIDGE.cv2_to_imgmsg(array, wrong)
    with pytest.raises(TypeError):
        BRIDGE.cv2_to_imgmsg([1, 2, 3])
