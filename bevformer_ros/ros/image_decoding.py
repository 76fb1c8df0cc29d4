"""Image messages to BGR arrays, copying at most once (not at all for bgr8)."""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bevformer_ros.inference.device_image import DeviceImage
from bevformer_ros.ros.messages import CompressedImage, Image

BgrImage = NDArray[np.uint8]
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_JPEG_TAIL = 1024  # some cameras pad their JPEGs
# Markers that start a frame and say its size, and those without a length.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_LONE = frozenset((0x01, *range(0xD0, 0xD9)))
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"
_COLOUR_MODES = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}
# Raw images that no camera sends, and what OpenCV would take minutes for.
MAXIMUM_PIXELS = 1 << 26

# OpenCV names a Bayer pattern by the second row's second and third pixel, ROS by the first row's first two.
_BAYER = {
    "bayer_rggb8": cv2.COLOR_BayerBG2BGR,
    "bayer_bggr8": cv2.COLOR_BayerRG2BGR,
    "bayer_gbrg8": cv2.COLOR_BayerGR2BGR,
    "bayer_grbg8": cv2.COLOR_BayerGB2BGR,
}
# Encoding -> bytes per pixel, OpenCV conversion to BGR (None: it is BGR).
_CONVERSIONS: dict[str, tuple[int, int | None]] = {
    "bgr8": (3, None),
    "8UC3": (3, None),
    "rgb8": (3, cv2.COLOR_RGB2BGR),
    "bgra8": (4, cv2.COLOR_BGRA2BGR),
    "rgba8": (4, cv2.COLOR_RGBA2BGR),
    "mono8": (1, cv2.COLOR_GRAY2BGR),
    **{encoding: (1, conversion) for encoding, conversion in _BAYER.items()},
    "yuv422": (2, cv2.COLOR_YUV2BGR_UYVY),
    "uyvy": (2, cv2.COLOR_YUV2BGR_UYVY),
    "yuv422_yuy2": (2, cv2.COLOR_YUV2BGR_YUY2),
    "yuyv": (2, cv2.COLOR_YUV2BGR_YUY2),
}


def image_size(message: Image | CompressedImage) -> tuple[int, int]:
    """Width and height as the message's or the file's own header has them; nothing is decoded.

    Raises ValueError for what is no JPEG or PNG, and for an image that ends early, is empty, or is larger than any
    camera's.
    """
    compressed = is_compressed(message)
    width, height = _compressed_size(message) if compressed else (message.width, message.height)
    if not 0 < width * height <= MAXIMUM_PIXELS:
        raise ValueError(f"image of {width} x {height} pixels, expected 1 to {MAXIMUM_PIXELS} pixels")
    return width, height


def decode_image(message: Image | CompressedImage, reduction: int = 1) -> BgrImage:
    """(H, W, 3) uint8 BGR; for bgr8 a view of the message's own memory.

    reduction: 1, 2 or 4. A JPEG is decoded with sides smaller by it, rounded up, each pixel the mean of those that it
    covers but for what the decoder rounds; images of other kinds stay as large as they are.
    Raises ValueError for an encoding that neither this module nor an installed cv_bridge knows, and for data
    that do not fit the message's own description.
    """
    size, shrink = image_size(message), reduction if is_jpeg(message) else 1
    try:
        image = _decode_compressed(message, shrink) if is_compressed(message) else _decode_raw(message)
    except cv2.error as error:
        raise ValueError(f"OpenCV cannot decode the image: {error.err or error}") from error
    if image.shape != (-(-size[1] // shrink), -(-size[0] // shrink), 3):
        raise ValueError(f"image of shape {image.shape}, its header describes {size[0]} x {size[1]} pixels")
    return image


def is_compressed(message: Image | CompressedImage) -> bool:
    """By its field: without ROS, messages read and messages made are of different classes."""
    return hasattr(message, "format")


def _compressed_size(message: CompressedImage) -> tuple[int, int]:
    data = bytes(message.data)
    _bayer_pattern(message)
    if data.startswith(_PNG_START):
        if len(data) < 33 or _PNG_END not in data[-_JPEG_TAIL:]:
            raise ValueError(f"PNG of {len(data)} bytes ends early")
        return struct.unpack(">II", data[16:24])
    if not data.startswith(_JPEG_START):
        raise ValueError(f"compressed image of {len(data)} bytes, format {message.format!r}, is not a JPEG or PNG")
    if _JPEG_END not in data[-_JPEG_TAIL:]:
        raise ValueError(f"JPEG of {len(data)} bytes ends early")
    return _jpeg_size(data)


def _jpeg_size(data: bytes) -> tuple[int, int]:
    position = 2
    while position + 9 <= len(data):
        if data[position] != 0xFF:
            break
        marker = data[position + 1]
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack(">HH", data[position + 5 : position + 9])
            return width, height
        if marker in _JPEG_LONE or marker == 0xFF:  # 0xFF fills
            position += 1 if marker == 0xFF else 2
        else:
            position += 2 + max(2, int.from_bytes(data[position + 2 : position + 4], "big"))
    raise ValueError(f"JPEG of {len(data)} bytes says no size")


def _decode_raw(message: Image) -> BgrImage:
    if message.encoding not in _CONVERSIONS:
        return _decode_with_cv_bridge(message)
    channels, conversion = _CONVERSIONS[message.encoding]
    if channels == 2 and message.width % 2:
        raise ValueError(f"image of {message.encoding} is {message.width} pixels wide, expected an even width")
    pixels = _pixel_view(message, channels)
    return pixels if conversion is None else _converted(pixels, conversion)


def _pixel_view(message: Image, channels: int) -> BgrImage:
    """(H, W, channels) view of the message's bytes, rows step bytes apart."""
    height, width, step = message.height, message.width, message.step
    if step < width * channels:
        raise ValueError(
            f"step is {step} bytes, expected at least {width * channels} for {width} pixels of {message.encoding}"
        )
    data = np.frombuffer(message.data, np.uint8)
    if data.size < (height - 1) * step + width * channels:
        raise ValueError(f"image holds {data.size} bytes, expected {height * step} for {height} rows of {step}")
    return np.lib.stride_tricks.as_strided(data, (height, width, channels), (step, channels, 1))


def _decode_with_cv_bridge(message: Image) -> BgrImage:
    try:
        from cv_bridge import CvBridge, CvBridgeError
    except ImportError as error:
        raise ValueError(
            f"image encoding {message.encoding!r} is not supported without cv_bridge; publish one of "
            f"{', '.join(_CONVERSIONS)} or install cv_bridge"
        ) from error
    bridge = CvBridge()
    try:
        plain = _plain(message, *bridge.encoding_to_dtype_with_channels(message.encoding))
        return np.asarray(bridge.imgmsg_to_cv2(plain, "bgr8"))
    # Upstream's raises the last two for what it does not expect.
    except (CvBridgeError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"cv_bridge cannot turn image encoding {message.encoding!r} into bgr8: {error}") from error


def _plain(message: Image, element: str, channels: int) -> Image:
    """The image with unpadded rows in the machine's byte order: upstream's cv_bridge shears rows that are padded by
    less than a pixel, and its swapping of bytes fails with NumPy 2. element: name of a numpy type."""
    theirs = np.dtype(element).newbyteorder(">" if message.is_bigendian else "<")
    rows = np.ascontiguousarray(_pixel_view(message, channels * theirs.itemsize))
    return type(message)(
        header=message.header,
        height=message.height,
        width=message.width,
        encoding=message.encoding,
        is_bigendian=int(sys.byteorder == "big"),
        step=message.width * channels * theirs.itemsize,
        data=rows.view(theirs).astype(np.dtype(element)).tobytes(),
    )


def _decode_compressed(message: CompressedImage, reduction: int) -> BgrImage:
    pattern = _bayer_pattern(message)
    mode = cv2.IMREAD_GRAYSCALE if pattern else _COLOUR_MODES[reduction]
    image = cv2.imdecode(np.frombuffer(message.data, np.uint8), mode | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise ValueError(f"compressed image of {len(message.data)} bytes, format {message.format!r}, is damaged")
    return _converted(image, _BAYER[pattern]) if pattern else np.asarray(image, np.uint8)


def _bayer_pattern(message: CompressedImage) -> str:
    """Raw encoding of a compressed mosaic, empty for a colour image; ValueError for what no image here can be.

    The format is "jpeg", "png" or, from image_transport, "<raw encoding>; jpeg compressed <encoding>".
    """
    if "compressedDepth" in message.format:
        raise ValueError(f"compressed format {message.format!r} is depth, expected a colour image in JPEG or PNG")
    encoding = message.format.partition(";")[0].strip()
    if not encoding.startswith("bayer_"):
        return ""
    if encoding not in _BAYER:
        raise ValueError(f"compressed Bayer encoding {encoding!r} is not supported, expected an 8-bit one")
    return encoding


def _converted(pixels: NDArray[Any], conversion: int) -> BgrImage:
    return np.asarray(cv2.cvtColor(pixels, conversion), np.uint8)


def is_jpeg(message: Image | CompressedImage) -> bool:
    """Whether the message is a JPEG of a colour image, to be decoded as it is."""
    return (
        is_compressed(message)
        and "compressedDepth" not in message.format
        and not message.format.startswith("bayer_")
        and bytes(message.data[:2]) == _JPEG_START
    )


class GpuJpegDecoder:
    """Decodes a set of JPEGs at once on a CUDA device by torchvision, whose results differ by a few grey levels.

    The images stay there, on the current stream. torchvision is not needed for anything else.
    """

    def __init__(self, device: str) -> None:
        try:
            import torch
            from torchvision.io import decode_jpeg
        except (ImportError, RuntimeError) as error:
            raise ValueError(
                f"jpeg_decoder is cuda, but torchvision cannot be imported ({error}); install it for this torch, or "
                "set jpeg_decoder to cpu"
            ) from error
        if not torch.cuda.is_available():
            raise ValueError("jpeg_decoder is cuda, but there is no CUDA device; set jpeg_decoder to cpu")
        self._as_tensor = partial(torch.frombuffer, dtype=torch.uint8)
        self._current_stream = partial(torch.cuda.current_stream, device)
        self._decode, self._device = decode_jpeg, device

    def __call__(self, messages: Sequence[CompressedImage]) -> list[DeviceImage]:
        """Raises ValueError for data that are no whole JPEG."""
        files = [self._as_tensor(message.data) for message in messages]
        try:
            # It writes on a stream of its own, at once, into memory that the current one may still work with.
            self._current_stream().synchronize()
            decoded = self._decode(files, mode="RGB", device=self._device)
        except RuntimeError as error:
            raise ValueError(f"a compressed image cannot be decoded on the GPU: {error}") from error
        return [DeviceImage(image.flip(0).permute(1, 2, 0)) for image in decoded]
