"""Image messages to BGR arrays, copying at most once (not at all for bgr8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image

BgrImage = NDArray[np.uint8]
_JPEG_START = b"\xff\xd8"

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


def decode_image(message: Image | CompressedImage) -> BgrImage:
    """(H, W, 3) uint8 BGR; for bgr8 a view of the message's own memory.

    Raises ValueError for an encoding that neither this module nor an installed cv_bridge knows, and for data
    that do not fit the message's own description.
    """
    return _decode_compressed(message) if isinstance(message, CompressedImage) else _decode_raw(message)


def _decode_raw(message: Image) -> BgrImage:
    if message.encoding not in _CONVERSIONS:
        return _decode_with_cv_bridge(message)
    channels, conversion = _CONVERSIONS[message.encoding]
    pixels = _pixel_view(message, channels)
    return pixels if conversion is None else _converted(pixels, conversion)


def _pixel_view(message: Image, channels: int) -> BgrImage:
    """(H, W, channels) view of the message's bytes, rows step bytes apart."""
    height, width, step = message.height, message.width, message.step
    if height == 0 or width == 0:
        raise ValueError(f"image of {width} x {height} pixels is empty")
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
    try:
        return CvBridge().imgmsg_to_cv2(message, "bgr8")
    except CvBridgeError as error:
        raise ValueError(f"cv_bridge cannot turn image encoding {message.encoding!r} into bgr8: {error}") from error


def _decode_compressed(message: CompressedImage) -> BgrImage:
    """The format is "jpeg", "png" or, from image_transport, "<raw encoding>; jpeg compressed <encoding>"."""
    if "compressedDepth" in message.format:
        raise ValueError(f"compressed format {message.format!r} is depth, expected a colour image in JPEG or PNG")
    encoding = message.format.partition(";")[0].strip()
    bayer = encoding.startswith("bayer_")
    if bayer and encoding not in _BAYER:
        raise ValueError(f"compressed Bayer encoding {encoding!r} is not supported, expected an 8-bit one")
    mode = cv2.IMREAD_GRAYSCALE if bayer else cv2.IMREAD_COLOR
    data = np.frombuffer(message.data, np.uint8)
    image = cv2.imdecode(data, mode | cv2.IMREAD_IGNORE_ORIENTATION) if data.size else None
    if image is None:
        raise ValueError(f"compressed image of {data.size} bytes, format {message.format!r}, is not a JPEG or PNG")
    return _converted(image, _BAYER[encoding]) if bayer else np.asarray(image, np.uint8)


def _converted(pixels: NDArray[Any], conversion: int) -> BgrImage:
    return np.asarray(cv2.cvtColor(pixels, conversion), np.uint8)


def is_jpeg(message: Image | CompressedImage) -> bool:
    """Whether the message is a JPEG of a colour image, to be decoded as it is."""
    return (
        isinstance(message, CompressedImage)
        and "compressedDepth" not in message.format
        and not message.format.startswith("bayer_")
        and bytes(message.data[:2]) == _JPEG_START
    )


class GpuJpegDecoder:
    """Decodes a set of JPEGs at once on a CUDA device by torchvision, whose results differ by a few grey levels.

    The images come back to the host, where all else expects them. torchvision is not needed for anything else.
    """

    def __init__(self) -> None:
        try:
            from torchvision.io import decode_jpeg
        except (ImportError, RuntimeError) as error:
            raise ValueError(
                f"jpeg_decoder is cuda, but torchvision cannot be imported ({error}); install it for this torch, or "
                "set jpeg_decoder to cpu"
            ) from error
        if not torch.cuda.is_available():
            raise ValueError("jpeg_decoder is cuda, but there is no CUDA device; set jpeg_decoder to cpu")
        self._decode = decode_jpeg

    def __call__(self, messages: Sequence[CompressedImage | None]) -> list[BgrImage | None]:
        """One image or None per message. Raises ValueError for data that are no whole JPEG."""
        files = [torch.frombuffer(message.data, dtype=torch.uint8) for message in messages if message is not None]
        try:
            decoded = iter(self._decode(files, mode="RGB", device="cuda"))
        except RuntimeError as error:
            raise ValueError(f"a compressed image cannot be decoded on the GPU: {error}") from error
        return [None if message is None else _bgr_on_host(next(decoded)) for message in messages]


def _bgr_on_host(image: torch.Tensor) -> BgrImage:
    """(3, H, W) RGB -> (H, W, 3) BGR."""
    return np.asarray(image.flip(0).permute(1, 2, 0).contiguous().cpu().numpy())
