"""How a lens bends the rays of a camera: which pixel shows a point, what a pinhole would have seen, how a line looks.

Points lie in the optical frame (REP-103: x right, y down, z forward); pixel centres lie at integers. Models and
coefficients are those of sensor_msgs/CameraInfo: plumb_bob and rational_polynomial with OpenCV's extensions, and
equidistant (J. Kannala and S. Brandt, "A generic camera model and calibration method for conventional, wide-angle, and
fish-eye lenses", 2006).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
LensModel = Literal["plumb_bob", "rational_polynomial", "equidistant"]

# OpenCV's order: k1 k2 p1 p2 k3 k4 k5 k6, thin prism s1 s2 s3 s4, tilt of the sensor about x and y.
_BROWN_COUNTS = (0, 4, 5, 8, 12, 14)
_EQUIDISTANT_COUNT = 4
_NEAR = 0.1  # metres before a camera at which lines are cut
_PIECES = 24  # of a line in the image of a lens that bends it
_ANGLE_STEP = np.radians(0.1)
_NOWHERE = -2.0  # a pixel outside every image
_TINY = float(np.finfo(np.float64).tiny)
# Of the inverse: angles of its table, and rounds of its iteration.
_INVERSE_STEPS, _INVERSE_ROUNDS = 20_000, 20


@dataclass(frozen=True)
class Lens:
    """model: the formula. coefficients: CameraInfo.d, none for a pinhole. Raises ValueError for a number of them that
    the model does not have."""

    model: LensModel = "plumb_bob"
    coefficients: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        counts = (_EQUIDISTANT_COUNT,) if self.model == "equidistant" else _BROWN_COUNTS
        if len(self.coefficients) not in counts:
            expected = " or ".join(map(str, counts))
            raise ValueError(f"{len(self.coefficients)} coefficients of a lens {self.model}, expected {expected}")

    @property
    def is_pinhole(self) -> bool:
        """Whether straight lines stay straight."""
        return self.model != "equidistant" and not any(self.coefficients)

    @cached_property
    def widest_angle(self) -> float:
        """Radians from the optical axis up to which rays farther out have pixels farther out: beyond it, the formula
        says nothing of the lens."""
        limit = np.pi if self.model == "equidistant" else np.pi / 2
        angles = np.arange(0.0, limit, _ANGLE_STEP)
        falls = np.flatnonzero(~(np.diff(self.radii(angles)) > 0))
        return float(angles[falls[0]] if falls.size else angles[-1])

    def radii(self, angles: Array) -> Array:
        """Distances from the principal point, in focal lengths, at which rays of these angles from the optical axis
        arrive; without what is not symmetric about the axis."""
        with np.errstate(all="ignore"):
            if self.model == "equidistant":
                return angles * (1 + _polynomial(np.square(angles), self.coefficients))
            radii = np.tan(angles)
            return radii * _radial(np.square(radii), self._padded)

    @property
    def _padded(self) -> Array:
        return np.append(self.coefficients, np.zeros(14 - len(self.coefficients)))


PINHOLE = Lens()


def project(lens: Lens, intrinsics: ArrayLike, points_camera: ArrayLike) -> Array:
    """Pixels (..., 2) of points (..., 3), NaN where the lens sees nothing: beyond its widest angle, and for all but a
    fisheye behind the camera."""
    points, matrix = np.asarray(points_camera, np.float64), np.asarray(intrinsics, np.float64)
    across = np.hypot(points[..., 0], points[..., 1])
    angles = np.arctan2(across, points[..., 2])
    seen = angles < lens.widest_angle if not lens.is_pinhole else points[..., 2] > 0
    with np.errstate(all="ignore"):
        if lens.model == "equidistant":
            plane = points[..., :2] * (lens.radii(angles) / np.maximum(across, _TINY))[..., None]
        else:
            plane = _bent(points[..., :2] / points[..., 2:], lens._padded)
    pixels = plane @ matrix[:2, :2].T + matrix[:2, 2]
    return np.where(seen[..., None], pixels, np.nan)


def unproject(lens: Lens, intrinsics: ArrayLike, pixels: ArrayLike) -> Array:
    """Unit vectors (..., 3) towards what pixels (..., 2) show, NaN for those that no ray reaches."""
    matrix = np.asarray(intrinsics, np.float64)
    plane = (np.asarray(pixels, np.float64) - matrix[:2, 2]) @ np.linalg.inv(matrix[:2, :2]).T
    radii = np.linalg.norm(plane, axis=-1)
    angles = np.linspace(0.0, lens.widest_angle, _INVERSE_STEPS, dtype=np.float64)
    reached = lens.radii(angles)
    angle = np.interp(radii, reached, angles, right=np.nan)
    if lens.model == "equidistant":
        return _rays(plane, radii, angle)
    guess = plane * (np.tan(angle) / np.maximum(radii, _TINY))[..., None]
    for _ in range(_INVERSE_ROUNDS):  # for what is not symmetric about the axis
        rest = plane - _bent(guess, lens._padded)
        guess = guess + rest
    return _rays(guess, np.linalg.norm(guess, axis=-1), np.arctan(np.linalg.norm(guess, axis=-1)))


def project_lines(lens: Lens, intrinsics: ArrayLike, lines_camera: ArrayLike) -> Array:
    """Lines (n, 2, 3), from point to point, as paths of pixels (n, k, 2); NaN where the lens sees nothing of them.

    A path has two points where the lens keeps it straight, and otherwise so many, at equal angles, that it looks bent.
    """
    lines = np.asarray(lines_camera, np.float64)
    if lens.model != "equidistant":
        lines = _cut_at_near_plane(lines)
    return project(lens, intrinsics, lines if lens.is_pinhole else _subdivided(lines))


def virtual_pinhole(intrinsics: Array, width: int, field_of_view_deg: float | None) -> Array:
    """Intrinsics (3, 3) of the pinhole camera in whose place an undistorted image of the same size stands.

    field_of_view_deg: across the width; None keeps the focal length, and with it the scale about the principal point.
    """
    pinhole = np.array(intrinsics, np.float64)
    if field_of_view_deg is not None:
        pinhole[:2, :2] *= width / 2 / np.tan(np.radians(field_of_view_deg) / 2) / pinhole[0, 0]
    return pinhole


def undistortion_maps(
    lens: Lens, intrinsics: Array, pinhole: Array, size: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Columns and rows (H, W) of the image at which an undistorted one of the same size (width, height) looks, for
    cv2.remap; outside the image where the lens sees nothing. pinhole: intrinsics of the undistorted image."""
    columns, rows = np.meshgrid(np.arange(size[0], dtype=np.float64), np.arange(size[1], dtype=np.float64))
    rays = np.stack([columns, rows, np.ones_like(rows)], axis=-1) @ np.linalg.inv(pinhole).T
    pixels = np.nan_to_num(project(lens, intrinsics, rays), nan=_NOWHERE).astype(np.float32)
    return np.ascontiguousarray(pixels[..., 0]), np.ascontiguousarray(pixels[..., 1])


def _rays(plane: Array, radii: Array, angles: Array) -> Array:
    """Unit vectors (..., 3) at angles from the axis, on the side of points (..., 2) of the plane."""
    across = plane * (np.sin(angles) / np.maximum(radii, _TINY))[..., None]
    return np.concatenate([across, np.cos(angles)[..., None]], axis=-1)


def _polynomial(values: Array, coefficients: tuple[float, ...]) -> Array:
    """values * (c1 + values * (c2 + ...))."""
    result = np.zeros_like(values)
    for coefficient in reversed(coefficients):
        result = values * (coefficient + result)
    return result


def _radial(square: Array, padded: Array) -> Array:
    k1, k2, _, _, k3, k4, k5, k6 = padded[:8]
    return (1 + _polynomial(square, (k1, k2, k3))) / (1 + _polynomial(square, (k4, k5, k6)))


def _bent(plane: Array, padded: Array) -> Array:
    """Points (..., 2) of the plane at distance 1 to where the lens puts them."""
    x, y = plane[..., 0], plane[..., 1]
    square = x * x + y * y
    radial = _radial(square, padded)
    p1, p2 = padded[2:4]
    s1, s2, s3, s4, tilt_x, tilt_y = padded[8:]
    bent_x = x * radial + 2 * p1 * x * y + p2 * (square + 2 * x * x) + square * (s1 + square * s2)
    bent_y = y * radial + 2 * p2 * x * y + p1 * (square + 2 * y * y) + square * (s3 + square * s4)
    if not (tilt_x or tilt_y):
        return np.stack([bent_x, bent_y], axis=-1)
    tilted = np.stack([bent_x, bent_y, np.ones_like(x)], axis=-1) @ _tilt(tilt_x, tilt_y).T
    return tilted[..., :2] / tilted[..., 2:]


def _tilt(about_x: float, about_y: float) -> Array:
    """(3, 3): the projection onto a sensor that is tilted about the optical centre's foot, as OpenCV defines it."""
    sin_x, cos_x, sin_y, cos_y = np.sin(about_x), np.cos(about_x), np.sin(about_y), np.cos(about_y)
    turn_x = np.array([[1, 0, 0], [0, cos_x, sin_x], [0, -sin_x, cos_x]])
    turn_y = np.array([[cos_y, 0, -sin_y], [0, 1, 0], [sin_y, 0, cos_y]])
    turn = turn_y @ turn_x
    onto_plane = np.array([[turn[2, 2], 0, -turn[0, 2]], [0, turn[2, 2], -turn[1, 2]], [0, 0, 1]])
    return onto_plane @ turn


def _cut_at_near_plane(lines: Array) -> Array:
    """Without what lies nearer than _NEAR before the camera or behind it; NaN where nothing remains."""
    depths = lines[..., 2]
    with np.errstate(all="ignore"):
        share = (_NEAR - depths) / (depths[:, ::-1] - depths)
        crossings = lines + share[..., None] * (lines[:, ::-1] - lines)
    cut = np.where((depths < _NEAR)[..., None], crossings, lines)
    in_front = depths.max(axis=1) > _NEAR
    return np.where(in_front[:, None, None], cut, np.nan)


def _subdivided(lines: Array) -> Array:
    """Lines (n, 2, 3) as (n, k, 3), points at equal angles seen from the camera."""
    starts, ends = lines[:, :1], lines[:, 1:]
    near, far = np.linalg.norm(starts, axis=-1, keepdims=True), np.linalg.norm(ends, axis=-1, keepdims=True)
    across = np.linalg.norm(np.cross(starts, ends), axis=-1, keepdims=True)
    angle = np.arctan2(across, (starts * ends).sum(axis=-1, keepdims=True))
    part = angle * np.linspace(0.0, 1.0, _PIECES + 1)[:, None]
    with np.errstate(all="ignore"):
        share = near * np.sin(part) / (near * np.sin(part) + far * np.sin(angle - part))
    even = np.linspace(0.0, 1.0, _PIECES + 1)[:, None]
    share = np.where(np.isfinite(share), share, even)  # a line towards the camera
    return starts + share * (ends - starts)
