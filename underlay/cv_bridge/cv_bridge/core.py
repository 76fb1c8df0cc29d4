"""ROS image messages to numpy arrays as OpenCV has them, and back."""

from __future__ import annotations

import re
import sys
from typing import NamedTuple

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header


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
_TYPE_NAMES = {np.dtype(code): name for name, code in _TYPES.items()}


class CvBridge:
    def imgmsg_to_cv2(self, img_msg: Image, desired_encoding: str = "passthrough") -> np.ndarray:
        """(height, width) for one channel, else (height, width, channels), in the machine's byte order.

        With "passthrough" and unpadded rows the array shares the message's memory. Raises CvBridgeError.
        """
        encoding = _parse(img_msg.encoding)
        dtype = encoding.dtype.newbyteorder(">" if img_msg.is_bigendian else "<")
        row_bytes = img_msg.width * encoding.channels * dtype.itemsize
        if img_msg.step < row_bytes or len(img_msg.data) < img_msg.height * img_msg.step:
            raise CvBridgeError(
                f"{img_msg.width}x{img_msg.height} {img_msg.encoding} needs rows of {row_bytes} bytes or more, "
                f"got {len(img_msg.data)} bytes with step {img_msg.step}"
            )
        shape = (img_msg.height, img_msg.width) + ((encoding.channels,) if encoding.channels > 1 else ())
        pixel = (encoding.channels * dtype.itemsize, dtype.itemsize)[: len(shape) - 1]
        padded: np.ndarray = np.ndarray(shape, dtype, buffer=img_msg.data, strides=(img_msg.step, *pixel))
        image = np.ascontiguousarray(padded, dtype=encoding.dtype)
        return _convert(image, img_msg.encoding, desired_encoding)

    def compressed_imgmsg_to_cv2(
        self, cmprs_img_msg: CompressedImage, desired_encoding: str = "passthrough"
    ) -> np.ndarray:
        """Decoded to bgr8, or to one channel if it is grey, then converted as from bgr8. Raises CvBridgeError."""
        data = np.frombuffer(cmprs_img_msg.data, dtype=np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_ANYCOLOR) if data.size else None
        if image is None:
            raise CvBridgeError(f"{data.size} bytes of format '{cmprs_img_msg.format}' are no image OpenCV can decode")
        return _convert(image, "bgr8", desired_encoding)

    def cv2_to_imgmsg(self, cvim: np.ndarray, encoding: str = "passthrough", header: Header | None = None) -> Image:
        """The image as a message; "passthrough" names the type (8UC3), else `encoding` must fit the array."""
        if not isinstance(cvim, np.ndarray):
            raise TypeError(f"expected a numpy array, got a {type(cvim).__name__}")
        if cvim.dtype not in _TYPE_NAMES:
            raise CvBridgeError(f"no image encoding has elements of type {cvim.dtype}")
        channels = cvim.shape[2] if cvim.ndim == 3 else 1
        type_name = f"{_TYPE_NAMES[cvim.dtype]}C{channels}"
        if encoding != "passthrough" and _parse(encoding)[:2] != (cvim.dtype, channels):
            raise CvBridgeError(f"encoding specified as {encoding}, but image has incompatible type {type_name}")
        message = Image(height=cvim.shape[0], width=cvim.shape[1])
        if header is not None:
            message.header = header
        message.encoding = type_name if encoding == "passthrough" else encoding
        message.is_bigendian = sys.byteorder == "big"
        message.step = cvim.shape[1] * channels * cvim.itemsize
        message.data.frombytes(cvim.tobytes())
        return message


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
