"""ROS image messages to numpy arrays as OpenCV has them."""

from __future__ import annotations

import re
from typing import NamedTuple

import cv2
import numpy as np
from sensor_msgs.msg import Image


class CvBridgeError(TypeError):
    """The message is malformed, or the conversion unknown or without meaning."""


class _Encoding(NamedTuple):
    dtype: np.dtype
    channels: int
    colour: str  # a key of _TO_BGR, or empty for a generic type


# OpenCV names a Bayer pattern by the second row's second and third pixel, ROS by the first row's first two.
_TO_BGR = {
    "mono": cv2.COLOR_GRAY2BGR,
    "bgr": None,
    "rgb": cv2.COLOR_RGB2BGR,
    "bgra": cv2.COLOR_BGRA2BGR,
    "rgba": cv2.COLOR_RGBA2BGR,
    "bayer_rggb": cv2.COLOR_BayerBG2BGR,
    "bayer_bggr": cv2.COLOR_BayerRG2BGR,
    "bayer_gbrg": cv2.COLOR_BayerGR2BGR,
    "bayer_grbg": cv2.COLOR_BayerGB2BGR,
    "yuv422": cv2.COLOR_YUV2BGR_UYVY,
    "yuv422_yuy2": cv2.COLOR_YUV2BGR_YUYV,
}
_FROM_BGR = {"mono": cv2.COLOR_BGR2GRAY, "bgr": None, "rgb": cv2.COLOR_BGR2RGB}
_CHANNELS = {"bgr": 3, "rgb": 3, "bgra": 4, "rgba": 4}
_COLOUR_ENCODINGS = {
    f"{colour}{bits}": _Encoding(np.dtype(f"u{bits // 8}"), _CHANNELS.get(colour, 1), colour)
    for colour in _TO_BGR
    for bits in (8, 16)
    if not colour.startswith("yuv")
} | {colour: _Encoding(np.dtype("u1"), 2, colour) for colour in ("yuv422", "yuv422_yuy2")}
_TYPES = {"8U": "u1", "8S": "i1", "16U": "u2", "16S": "i2", "32S": "i4", "32F": "f4", "64F": "f8"}


class CvBridge:
    def encoding_to_dtype_with_channels(self, encoding: str) -> tuple[str, int]:
        """Name of the numpy type of an element, and elements per pixel. Raises CvBridgeError."""
        known = _parse(encoding)
        return known.dtype.name, known.channels

    def imgmsg_to_cv2(self, img_msg: Image, desired_encoding: str = "passthrough") -> np.ndarray:
        """(height, width) for one channel, else (height, width, channels). Raises CvBridgeError, and TypeError for too
        few data."""
        encoding = _parse(img_msg.encoding)
        shape = (img_msg.height, img_msg.width) + ((encoding.channels,) if encoding.channels > 1 else ())
        image: np.ndarray = np.ndarray(shape, encoding.dtype, buffer=img_msg.data)
        return _convert(image, img_msg.encoding, desired_encoding)


def _convert(image: np.ndarray, source: str, desired: str) -> np.ndarray:
    if desired in ("passthrough", source):
        return image
    source_encoding, desired_encoding = _parse(source), _parse(desired)
    if not source_encoding.colour and desired_encoding.colour:
        raise CvBridgeError(f"[{source}] is not a color format, but [{desired}] is; the conversion does not make sense")
    if desired_encoding.colour not in _FROM_BGR:
        raise CvBridgeError(f"conversion from [{source}] to [{desired}] is not supported here")
    if source_encoding.colour != desired_encoding.colour:
        to_bgr, from_bgr = _TO_BGR[source_encoding.colour], _FROM_BGR[desired_encoding.colour]
        image = image if to_bgr is None else cv2.cvtColor(image, to_bgr)
        image = image if from_bgr is None else cv2.cvtColor(image, from_bgr)
    if source_encoding.dtype == desired_encoding.dtype:
        return image
    if desired_encoding.dtype == np.uint8:
        return cv2.convertScaleAbs(image, alpha=255.0 / 65535.0)
    return image.astype(np.uint16) * np.uint16(257)


def _parse(name: str) -> _Encoding:
    if name in _COLOUR_ENCODINGS:
        return _COLOUR_ENCODINGS[name]
    generic = re.fullmatch(r"(\d+[USF])C([1-4])", name)
    if generic is None or generic[1] not in _TYPES:
        raise CvBridgeError(f"Unrecognized image encoding [{name}]")
    return _Encoding(np.dtype(_TYPES[generic[1]]), int(generic[2]), "")
