from __future__ import annotations

import array
import builtins
import struct
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("sensor_msgs.msg", reason="needs the ROS environment that `make test` makes")

from sensor_msgs.msg import CompressedImage, Image

from bevformer_ros.inference.device_image import DeviceImage
from bevformer_ros.ros.image_decoding import GpuJpegDecoder, decode_image, image_size, is_jpeg

HEIGHT, WIDTH = 6, 8


@pytest.fixture
def colours():
    """Flat patches, so that demosaicing and chroma subsampling lose nothing away from the seams."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:] = (40, 120, 200)
    return image


def message_of(pixels, encoding, padding=0):
    rows = pixels.reshape(len(pixels), -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=255)
    return Image(height=len(pixels), width=WIDTH, encoding=encoding, step=rows.shape[1], data=rows.tobytes())


def mosaic(colours, pattern):
    """Sample BGR by a ROS Bayer pattern, named along the first row and then the second."""
    result = np.zeros(colours.shape[:2], np.uint8)
    for position, letter in enumerate(pattern):
        row, column = divmod(position, 2)
        result[row::2, column::2] = colours[row::2, column::2, "bgr".index(letter)]
    return result


def packed_yuv(colours, luma_first):
    yuv = cv2.cvtColor(colours, cv2.COLOR_BGR2YUV)
    packed = np.zeros((HEIGHT, WIDTH, 2), np.uint8)
    packed[..., 0 if luma_first else 1] = yuv[..., 0]
    packed[:, 0::2, 1 if luma_first else 0] = yuv[:, 0::2, 1]
    packed[:, 1::2, 1 if luma_first else 0] = yuv[:, 1::2, 2]
    return packed


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "order"),
    [("bgr8", (0, 1, 2)), ("8UC3", (0, 1, 2)), ("rgb8", (2, 1, 0)), ("bgra8", (0, 1, 2, 0)), ("rgba8", (2, 1, 0, 0))],
)
def test_colour_orders_and_padded_rows(colours, encoding, order, padding):
    colours[1:3, 2:4] = (9, 8, 7)
    assert np.array_equal(decode_image(message_of(colours[..., list(order)], encoding, padding)), colours)


@pytest.mark.parametrize("padding", [0, 1, 5, 12])
@pytest.mark.parametrize(("encoding", "order"), [("bgr16", (0, 1, 2)), ("rgb16", (2, 1, 0))])
@pytest.mark.parametrize("big_endian", [False, True])
def test_cv_bridge_sees_plain_rows(colours, encoding, order, big_endian, padding):
    """Upstream's shears rows that are padded by less than a pixel, and fails on the other byte order with NumPy 2."""
    colours[1:3, 2:4] = (9, 8, 7)
    deep = (colours[..., list(order)].astype(np.uint16) * 257).astype(">u2" if big_endian else "<u2")
    message = message_of(np.ascontiguousarray(deep), encoding, padding)
    message.is_bigendian = int(big_endian)
    assert np.array_equal(decode_image(message), colours)


@pytest.mark.parametrize("error", [TypeError("buffer is too small"), AttributeError("newbyteorder")])
def test_what_upstreams_cv_bridge_raises_is_understood(colours, monkeypatch, error):
    class Bridge:
        def encoding_to_dtype_with_channels(self, encoding):
            return "uint8", 3

        def imgmsg_to_cv2(self, message, encoding):
            raise error

    monkeypatch.setitem(sys.modules, "cv_bridge", SimpleNamespace(CvBridge=Bridge, CvBridgeError=TypeError))
    with pytest.raises(ValueError, match=f"cv_bridge cannot turn image encoding 'nv12' into bgr8: {error}"):
        decode_image(message_of(colours, "nv12"))


def test_mono_becomes_grey():
    grey = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
    assert np.array_equal(decode_image(message_of(grey, "mono8")), np.repeat(grey[..., None], 3, axis=-1))


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer(colours, pattern):
    decoded = decode_image(message_of(mosaic(colours, pattern), f"bayer_{pattern}8"))
    assert np.array_equal(decoded, colours)


@pytest.mark.parametrize(
    ("encoding", "luma_first"), [("yuv422", False), ("uyvy", False), ("yuv422_yuy2", True), ("yuyv", True)]
)
def test_yuv(colours, encoding, luma_first):
    decoded = decode_image(message_of(packed_yuv(colours, luma_first), encoding))
    # OpenCV's packed YUV is video range (16..235), its planar conversion full range: colours keep their order.
    assert decoded.shape == colours.shape
    assert (np.abs(decoded.astype(int) - colours) < 40).all()
    assert decoded[0, 0, 0] < decoded[0, 0, 1] < decoded[0, 0, 2]


def test_bgr_is_a_view_of_the_message(colours):
    message = message_of(colours, "bgr8")
    assert np.shares_memory(decode_image(message), np.frombuffer(message.data, np.uint8))


@pytest.mark.parametrize(
    ("extension", "form"), [(".png", "png"), (".jpg", "jpeg"), (".jpg", "rgb8; jpeg compressed bgr8")]
)
def test_compressed(colours, extension, form):
    data = cv2.imencode(extension, colours)[1].tobytes()
    decoded = decode_image(CompressedImage(format=form, data=data))
    assert np.abs(decoded.astype(int) - colours).max() <= (0 if form == "png" else 4)


def test_compressed_bayer_is_demosaiced(colours):
    data = cv2.imencode(".png", mosaic(colours, "rggb"))[1].tobytes()
    message = CompressedImage(format="bayer_rggb8; png compressed ", data=data)
    assert np.array_equal(decode_image(message), colours)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 0}, "of 8 x 0 pixels, expected 1 to"),
        ({"step": 23}, "step is 23 bytes, expected at least 24"),
        ({"data": b"123"}, "image holds 3 bytes, expected 144"),
        ({"width": 1 << 30, "height": 1 << 30}, "image of 1073741824 x 1073741824 pixels"),
        ({"encoding": "yuv422", "width": 7}, "yuv422 is 7 pixels wide, expected an even width"),
        ({"encoding": "mono16", "data": b"123"}, "cv_bridge cannot turn"),
    ],
)
def test_inconsistent_images_are_refused(colours, changes, message):
    image = message_of(colours, "bgr8")
    for name, value in changes.items():
        setattr(image, name, value)
    with pytest.raises(ValueError, match=message):
        decode_image(image)


@pytest.mark.parametrize(
    ("form", "data", "message"),
    [
        ("jpeg", b"", "0 bytes"),
        ("jpeg", b"not an image", "is not a JPEG or PNG"),
        ("32FC1; compressedDepth", b"x", "is depth"),
        ("bayer_rggb16; png compressed", b"x", "not supported, expected an 8-bit one"),
    ],
)
def test_broken_compressed_images_are_refused(form, data, message):
    with pytest.raises(ValueError, match=message):
        decode_image(CompressedImage(format=form, data=data))


def as_wide_as(data, position, kind, size):
    """The file with another size in its header."""
    return data[:position] + struct.pack(kind, *size) + data[position + struct.calcsize(kind) :]


def test_what_a_header_claims_is_not_allocated(colours):
    png = cv2.imencode(".png", colours)[1].tobytes()
    jpeg = cv2.imencode(".jpg", colours)[1].tobytes()
    frame = jpeg.index(b"\xff\xc0") + 5
    for data in (as_wide_as(png, 16, ">II", (1 << 20, 1 << 20)), as_wide_as(jpeg, frame, ">HH", (65500, 65500))):
        with pytest.raises(ValueError, match=r"image of \d+ x \d+ pixels, expected 1 to"):
            decode_image(CompressedImage(format="jpeg", data=data))


@pytest.mark.parametrize("extension", [".png", ".jpg"])
def test_half_a_file_is_no_image(extension):
    picture = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    data = cv2.imencode(extension, picture)[1].tobytes()
    assert image_size(CompressedImage(format="", data=data)) == (80, 60)
    with pytest.raises(ValueError, match="ends early"):
        decode_image(CompressedImage(format="", data=data[: len(data) // 2]))


def test_unknown_encoding_names_the_remedy(colours, monkeypatch):
    original = builtins.__import__

    def without_cv_bridge(name, *arguments, **keywords):
        if name == "cv_bridge":
            raise ImportError(name)
        return original(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without_cv_bridge)
    with pytest.raises(ValueError, match=r"'bgr16' is not supported.*install cv_bridge"):
        decode_image(message_of(colours, "bgr16"))


def jpeg_of(pixels, form="jpeg"):
    return CompressedImage(format=form, data=cv2.imencode(".jpg", pixels)[1].tobytes())


def test_what_counts_as_a_jpeg(colours):
    assert is_jpeg(jpeg_of(colours, "bgr8; jpeg compressed bgr8"))
    assert not is_jpeg(jpeg_of(colours[..., 0], "bayer_rggb8; jpeg compressed bayer_rggb8"))
    assert not is_jpeg(CompressedImage(format="png", data=cv2.imencode(".png", colours)[1].tobytes()))
    assert not is_jpeg(CompressedImage(format="jpeg", data=array.array("B")))
    assert not is_jpeg(message_of(colours, "bgr8"))


def test_decoding_on_a_gpu_with_a_decoder_that_stands_in(colours, monkeypatch):
    waited = []

    def current_stream(device):
        return SimpleNamespace(synchronize=lambda: waited.append(device))

    def decode_jpeg(files, mode, device):
        assert (mode, device) == ("RGB", "cuda:1")
        assert waited == ["cuda:1"]
        images = [cv2.imdecode(file.numpy(), cv2.IMREAD_COLOR)[..., ::-1].copy() for file in files]
        return [torch.from_numpy(image).permute(2, 0, 1) for image in images]

    monkeypatch.setitem(sys.modules, "torchvision.io", SimpleNamespace(decode_jpeg=decode_jpeg))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_stream", current_stream)
    messages = [jpeg_of(colours), jpeg_of(colours[::-1])]
    for image, message in zip(GpuJpegDecoder("cuda:1")(messages), messages, strict=True):
        assert isinstance(image, DeviceImage) and image.shape == colours.shape
        assert np.array_equal(image, decode_image(message))


def test_a_gpu_decoder_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.io", None)
    with pytest.raises(ValueError, match="jpeg_decoder is cuda, but torchvision cannot be imported"):
        GpuJpegDecoder("cuda")


@pytest.mark.parametrize(("reduction", "size"), [(1, (45, 33)), (2, (23, 17)), (4, (12, 9))])
def test_a_jpeg_is_decoded_smaller(reduction, size):
    """A smooth picture of odd sides: every pixel is about the mean of those that it covers."""
    rows, columns = np.mgrid[:33, :45]
    pixels = np.stack([4 * columns, 5 * rows, 2 * (rows + columns)], axis=-1).astype(np.uint8)
    image = decode_image(jpeg_of(pixels), reduction)
    assert image.shape == (*size[::-1], 3)
    whole = pixels[: 33 // reduction * reduction, : 45 // reduction * reduction].astype(float)
    means = whole.reshape(33 // reduction, reduction, 45 // reduction, reduction, 3).mean(axis=(1, 3))
    difference = np.abs(image[: len(means), : means.shape[1]] - means)
    assert difference.mean() < 2 and difference.max() < 16


def test_what_is_no_jpeg_stays_as_large_as_it_is(colours):
    png = CompressedImage(format="png", data=cv2.imencode(".png", colours)[1].tobytes())
    for message in (png, message_of(colours, "bgr8")):
        assert np.array_equal(decode_image(message, 4), colours)
