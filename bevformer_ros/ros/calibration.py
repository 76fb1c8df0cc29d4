"""CameraInfo to the intrinsics of the image as it arrives: binning and region of interest, distortion models."""

from __future__ import annotations

from typing import get_args

import numpy as np
from numpy.typing import NDArray

from bevformer_ros.config import CameraConfig
from bevformer_ros.lens import PINHOLE, Lens, LensModel
from bevformer_ros.ros.messages import CameraInfo

_LENS_MODELS: dict[str, LensModel] = {"": "plumb_bob", **{model: model for model in get_args(LensModel)}}
# Focal length over the image's longer side: 0.5 is a field of view of 90 degrees, 10 one of 6 degrees.
_FOCAL_RATIOS = (0.05, 20.0)
_LARGEST_COEFFICIENT = 1e4


class UncalibratedError(ValueError):
    """The camera's CameraInfo holds no calibration: K is all zero, as REP-104 has it."""


class ImplausibleDistortionError(ValueError):
    """Distortion coefficients that no lens has."""


class WrongImageSizeError(ValueError):
    """The image has another size than its CameraInfo says."""


def camera_model(info: CameraInfo, image_size: tuple[int, int], rectified: bool) -> tuple[NDArray[np.float64], Lens]:
    """Intrinsics (3, 3) in pixels of the image received, and the lens before them.

    image_size: width, height of the image received. rectified: the image was rectified by its publisher, so P
    holds its intrinsics and D no longer applies. Raises UncalibratedError, WrongImageSizeError, and ValueError for a
    distortion model that cannot be undone and for numbers that no camera has.
    """
    field = "p" if rectified else "k"
    matrix = np.asarray(info.p, np.float64).reshape(3, 4)[:, :3] if rectified else np.asarray(info.k).reshape(3, 3)
    if not matrix.any():
        raise UncalibratedError(f"CameraInfo.{field} of {info.header.frame_id!r} is all zero; calibrate the camera")
    _check_size(info, image_size)
    full_size = (info.width, info.height) if info.width and info.height else image_size
    _check_matrix(matrix, full_size, f"CameraInfo.{field} of {info.header.frame_id!r}")
    lens = PINHOLE if rectified else _lens(info)
    if not lens.is_pinhole:
        _check_lens(lens, matrix, full_size, info.header.frame_id)
    # Pixel centres lie at integers: binned pixel u covers the full pixels b*u .. b*u + b - 1.
    image_from_full = np.eye(3)
    for axis, (bins, offset) in enumerate(zip(_binning(info), (info.roi.x_offset, info.roi.y_offset), strict=True)):
        image_from_full[axis, axis] = 1 / bins
        image_from_full[axis, 2] = -(offset + (bins - 1) / 2) / bins
    return image_from_full @ matrix, lens


def check_pixel_count(info: CameraInfo, image_size: tuple[int, int], maximum_ratio: float, rectified: bool) -> None:
    """Raises ValueError for an image of more than so many times the pixels that its CameraInfo describes; where that
    says no size, the principal point is taken for the middle of the image."""
    described = _described_size(info)
    if described is None:
        described = (2 * info.p[2], 2 * info.p[6]) if rectified else (2 * info.k[2], 2 * info.k[5])
    pixels = described[0] * described[1]
    if pixels > 0 and image_size[0] * image_size[1] > maximum_ratio * pixels:
        raise ValueError(
            f"image of {image_size[0]} x {image_size[1]} pixels, more than {maximum_ratio:g} times the "
            f"{described[0]:g} x {described[1]:g} of its CameraInfo: the image's header is damaged, or the CameraInfo "
            "is another camera's; an image that must be so large needs a higher maximum_image_pixel_ratio"
        )


def _check_size(info: CameraInfo, image_size: tuple[int, int]) -> None:
    """Raises WrongImageSizeError where the CameraInfo says another size than the image's width and height."""
    expected = _described_size(info)
    if expected is not None and image_size != expected:
        raise WrongImageSizeError(
            f"image of {image_size[0]} x {image_size[1]} pixels, but the CameraInfo of {info.header.frame_id!r} "
            f"describes {expected[0]} x {expected[1]}; publish the CameraInfo that belongs to the image "
            "(a resizing node has to scale it too)"
        )


def _described_size(info: CameraInfo) -> tuple[int, int] | None:
    """Width and height of the image as it arrives; None where the CameraInfo says none."""
    if info.width == 0 or info.height == 0:
        return None
    binning = _binning(info)
    return (info.roi.width or info.width) // binning[0], (info.roi.height or info.height) // binning[1]


def check_parts(camera: CameraConfig, image_size: tuple[int, int]) -> None:
    """Raises WrongImageSizeError where the rig's crop and masks do not lie in an image of this width and height."""
    crop = camera.crop
    for column, row in (corner for mask in camera.masks for corner in mask):
        if column > image_size[0] or row > image_size[1]:
            raise WrongImageSizeError(
                f"image of {image_size[0]} x {image_size[1]} pixels, but the rig's `masks` reach to {column:g}, {row:g}"
                "; give them in pixels of the images as they arrive"
            )
    if crop is not None and (crop[2] > image_size[0] or crop[3] > image_size[1]):
        raise WrongImageSizeError(
            f"image of {image_size[0]} x {image_size[1]} pixels, but the rig's `crop` reaches to {crop[2]}, {crop[3]}; "
            "give it in pixels of the images as they arrive"
        )


def _binning(info: CameraInfo) -> tuple[int, int]:
    return max(info.binning_x, 1), max(info.binning_y, 1)


def _check_matrix(matrix: NDArray[np.float64], size: tuple[int, int], name: str) -> None:
    """size: width and height of the whole sensor image, before binning and region of interest."""
    if not np.isfinite(matrix).all():
        raise ValueError(f"{name} holds {_first(matrix, ~np.isfinite(matrix))}; calibrate the camera again")
    if matrix[1, 0] != 0 or not np.array_equal(matrix[2], (0, 0, 1)):
        raise ValueError(f"{name} is no pinhole matrix: its last row is {matrix[2].tolist()}, expected [0, 0, 1]")
    shortest, longest = (ratio * max(size) for ratio in _FOCAL_RATIOS)
    for axis, label in enumerate(("fx", "fy")):
        focal = matrix[axis, axis]
        if not shortest <= focal <= longest:
            raise ValueError(
                f"{name} has {label} = {focal:g} pixels, expected {shortest:g} to {longest:g} for an image of "
                f"{size[0]} x {size[1]}; calibrate the camera again, and publish focal lengths in pixels"
            )
        if not 0 < matrix[axis, 2] < size[axis]:
            raise ValueError(
                f"{name} has its principal point at {matrix[0, 2]:g}, {matrix[1, 2]:g}, outside the image of "
                f"{size[0]} x {size[1]} pixels; calibrate the camera at the size that it publishes"
            )


def _lens(info: CameraInfo) -> Lens:
    coefficients = tuple(map(float, info.d))
    if info.distortion_model not in _LENS_MODELS:
        raise ValueError(
            f"distortion model {info.distortion_model!r} of {info.header.frame_id!r} is not supported, expected "
            f"{', '.join(get_args(LensModel))}; rectify the image first and say so in the rig: rectified: true"
        )
    model = _LENS_MODELS[info.distortion_model]
    if model != "equidistant" and not any(coefficients):
        return PINHOLE
    try:
        return Lens(model, coefficients)
    except ValueError as error:
        raise ValueError(f"CameraInfo.d of {info.header.frame_id!r} has {error}") from error


def _check_lens(lens: Lens, matrix: NDArray[np.float64], size: tuple[int, int], frame: str) -> None:
    """Rays farther from the axis must arrive farther out until the nearer edge of the image, or one pixel shows several
    of them."""
    coefficients = np.array(lens.coefficients)
    implausible = ~(np.abs(coefficients) <= _LARGEST_COEFFICIENT)
    if implausible.any():
        bad = _first(coefficients, implausible)
        raise ImplausibleDistortionError(f"CameraInfo.d of {frame!r} holds {bad:g}; calibrate the camera again")
    # In focal lengths.
    edge = min(max(matrix[axis, 2], size[axis] - matrix[axis, 2]) / matrix[axis, axis] for axis in range(2))
    highest = float(lens.radii(np.array(lens.widest_angle)))
    if not highest >= edge:
        raise ImplausibleDistortionError(
            f"CameraInfo.d of {frame!r}, {list(lens.coefficients)}, folds the image inside its edges: distortion rises "
            f"to {highest / edge:.0%} of the way to the nearer edge only; calibrate the camera again"
        )


def _first(values: NDArray[np.float64], chosen: NDArray[np.bool_]) -> float:
    return float(values[chosen][0])
