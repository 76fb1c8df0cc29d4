"""CameraInfo to the intrinsics of the image as it arrives: binning and region of interest, distortion models."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo

_DISTORTION_MODELS = ("", "plumb_bob", "rational_polynomial")
_DISTORTION_COUNTS = (0, 4, 5, 8, 12, 14)


class UncalibratedError(ValueError):
    """The camera's CameraInfo holds no calibration: K is all zero, as REP-104 has it."""


def camera_model(
    info: CameraInfo, image_size: tuple[int, int], rectified: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Intrinsics (3, 3) in pixels of the image received, and distortion coefficients (empty where there is none).

    image_size: width, height of the image received. rectified: the image was rectified by its publisher, so P
    holds its intrinsics and D no longer applies. Raises UncalibratedError, and ValueError for a distortion model
    that cannot be undone and for an image of another size than the calibration speaks of.
    """
    matrix = np.asarray(info.p, np.float64).reshape(3, 4)[:, :3] if rectified else np.asarray(info.k).reshape(3, 3)
    if not matrix.any():
        raise UncalibratedError(
            f"CameraInfo.{'p' if rectified else 'k'} of {info.header.frame_id!r} is all zero; calibrate the camera"
        )
    binning = max(info.binning_x, 1), max(info.binning_y, 1)
    _check_size(info, image_size, binning)
    # Pixel centres lie at integers: binned pixel u covers the full pixels b*u .. b*u + b - 1.
    image_from_full = np.eye(3)
    for axis, (bins, offset) in enumerate(zip(binning, (info.roi.x_offset, info.roi.y_offset), strict=True)):
        image_from_full[axis, axis] = 1 / bins
        image_from_full[axis, 2] = -(offset + (bins - 1) / 2) / bins
    distortion = np.zeros(0) if rectified else _distortion(info)
    return image_from_full @ matrix, distortion


def _check_size(info: CameraInfo, image_size: tuple[int, int], binning: tuple[int, int]) -> None:
    if info.width == 0 or info.height == 0:
        return
    full = info.roi.width or info.width, info.roi.height or info.height
    expected = full[0] // binning[0], full[1] // binning[1]
    if image_size != expected:
        raise ValueError(
            f"image of {image_size[0]} x {image_size[1]} pixels, but the CameraInfo of {info.header.frame_id!r} "
            f"describes {expected[0]} x {expected[1]}; publish the CameraInfo that belongs to the image "
            "(a resizing node has to scale it too)"
        )


def _distortion(info: CameraInfo) -> NDArray[np.float64]:
    coefficients = np.asarray(info.d, np.float64)
    if not coefficients.any():
        return np.zeros(0)
    if info.distortion_model not in _DISTORTION_MODELS:
        raise ValueError(
            f"distortion model {info.distortion_model!r} of {info.header.frame_id!r} is not supported, expected "
            "plumb_bob or rational_polynomial; rectify the image first (image_proc for pinhole, a fisheye "
            "rectifier for equidistant) and say so in the rig: rectified: true"
        )
    if len(coefficients) not in _DISTORTION_COUNTS:
        raise ValueError(
            f"CameraInfo.d of {info.header.frame_id!r} has {len(coefficients)} coefficients, expected one of "
            f"{', '.join(map(str, _DISTORTION_COUNTS))}"
        )
    return coefficients
