"""Messages of a data set's camera: its calibration, and its JPEG files as they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from bevformer_ros.config import CameraConfig
from bevformer_ros.ros.conversions import camera_info, header_of, image_to_message, jpeg_to_message
from bevformer_ros.ros.messages import CameraInfo, CompressedImage, Image


def info_message(
    config: CameraConfig, stamp_ns: int, shape: tuple[int, int], intrinsics: Sequence[Sequence[float]]
) -> CameraInfo:
    """shape: height, width."""
    return camera_info(header_of(stamp_ns, config.name), shape, np.array(intrinsics))


def image_file_message(config: CameraConfig, stamp_ns: int, file: Path) -> CompressedImage | Image:
    """A JPEG file, byte by byte where the camera's topic is a compressed one, else decoded."""
    data, header = file.read_bytes(), header_of(stamp_ns, config.name)
    if config.compressed:
        return jpeg_to_message(data, header)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return image_to_message(np.asarray(image, np.uint8), header)
