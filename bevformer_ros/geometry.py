"""Rigid transforms, pinhole projection and oriented boxes, in numpy and float64.

A transform is a 4x4 homogeneous matrix named `target_from_source`: `camera_from_bev @ point_bev` is the
point in the camera frame. Angles are radians, lengths metres. Quaternions are (x, y, z, w) as in ROS.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

Array = NDArray[np.float64]
Polygons = tuple[tuple[tuple[float, float], ...], ...]

# Two faces (rear x < 0, front x > 0) of four corners each, going round: see BOX_EDGES.
_UNIT_CORNERS = 0.5 * np.array(
    [[x, y, z] for x in (-1, 1) for y, z in ((-1, -1), (1, -1), (1, 1), (-1, 1))], dtype=np.float64
)
BOX_EDGES = tuple(
    [(i, (i + 1) % 4) for i in range(4)] + [(4 + i, 4 + (i + 1) % 4) for i in range(4)] + [(i, 4 + i) for i in range(4)]
)


def transform(translation: ArrayLike, quaternion_xyzw: ArrayLike) -> Array:
    """4x4 transform from a translation (3,) and a quaternion (4,), which is normalised."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(np.asarray(quaternion_xyzw, dtype=np.float64)).as_matrix()
    matrix[:3, 3] = translation
    return matrix


def transform_from_rpy(translation: ArrayLike, roll_pitch_yaw: ArrayLike) -> Array:
    """4x4 transform from a translation (3,) and fixed-axis roll, pitch, yaw (3,) as in URDF and REP-103."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", np.asarray(roll_pitch_yaw, dtype=np.float64)).as_matrix()
    matrix[:3, 3] = translation
    return matrix


def quaternion_xyzw(matrix: ArrayLike) -> Array:
    """Unit quaternion (4,) of the rotation part of a 4x4 or 3x3 matrix."""
    return Rotation.from_matrix(np.asarray(matrix, dtype=np.float64)[:3, :3]).as_quat()


def invert(target_from_source: ArrayLike) -> Array:
    """Inverse of a rigid 4x4 transform, exact to rounding (no general matrix inversion)."""
    matrix = np.asarray(target_from_source, dtype=np.float64)
    inverse = np.eye(4)
    inverse[:3, :3] = matrix[:3, :3].T
    inverse[:3, 3] = -matrix[:3, :3].T @ matrix[:3, 3]
    return inverse


def apply(target_from_source: ArrayLike, points_source: ArrayLike) -> Array:
    """Points (..., 3) carried from the source frame into the target frame."""
    matrix = np.asarray(target_from_source, dtype=np.float64)
    return np.asarray(points_source, dtype=np.float64) @ matrix[:3, :3].T + matrix[:3, 3]


def project(intrinsics: ArrayLike, points_camera: ArrayLike) -> tuple[Array, Array]:
    """Pixels (..., 2) and depths (...) of points (..., 3) in the optical camera frame (REP-103: z forward).

    Pixels of points with depth <= 0 are NaN.
    """
    points = np.asarray(points_camera, dtype=np.float64)
    depth = points[..., 2]
    safe_depth = np.where(depth > 0, depth, np.nan)
    homogeneous = points @ np.asarray(intrinsics, dtype=np.float64).T
    return homogeneous[..., :2] / safe_depth[..., None], depth


def scaled_intrinsics(intrinsics: ArrayLike, scale: float) -> Array:
    """Intrinsics (3, 3) of an image resized by a factor. Pixel centres lie at integers, so half a pixel is added before
    the scaling and taken away after it."""
    scaled = np.diag([scale, scale, 1.0]) @ np.asarray(intrinsics, dtype=np.float64)
    scaled[:2, 2] += 0.5 * scale - 0.5
    return scaled


def scaled_pixels(polygons: Polygons, scale: float) -> Polygons:
    """Polygons of (column, row) in an image resized by a factor, as scaled_intrinsics has it."""
    return tuple(
        tuple(((column + 0.5) * scale - 0.5, (row + 0.5) * scale - 0.5) for column, row in polygon)
        for polygon in polygons
    )


def box_corners(centers: ArrayLike, sizes: ArrayLike, yaws: ArrayLike) -> Array:
    """Corners (n, 8, 3) of boxes with centres (n, 3), sizes length, width, height (n, 3) and yaws (n,).

    Corners 0..3 are the rear face, 4..7 the front face; BOX_EDGES joins them.
    """
    return box_points(_UNIT_CORNERS * np.asarray(sizes, dtype=np.float64).reshape(-1, 1, 3), centers, yaws)


def box_points(local: Array, centers: ArrayLike, yaws: ArrayLike) -> Array:
    """Points (n, k, 3) along the axes of boxes with centres (n, 3) and yaws (n,), carried into the boxes' frame."""
    cos, sin = np.cos(yaws).reshape(-1, 1), np.sin(yaws).reshape(-1, 1)
    x = cos * local[..., 0] - sin * local[..., 1]
    y = sin * local[..., 0] + cos * local[..., 1]
    rotated = np.stack([x, y, local[..., 2]], axis=-1)
    return rotated + np.asarray(centers, dtype=np.float64).reshape(-1, 1, 3)


def box_quaternions(target_from_source: ArrayLike, yaws: ArrayLike) -> Array:
    """Orientations (n, 4), x, y, z, w, in the target frame of boxes with yaws (n,), n > 0, in the source frame.

    target_from_source: 3x3, the rotation.
    """
    source_from_box = Rotation.from_euler("z", np.asarray(yaws, np.float64)[:, None])  # SciPy 1.17 refuses (n,)
    return (Rotation.from_matrix(target_from_source) * source_from_box).as_quat()


def yaw_of(matrix: ArrayLike) -> float:
    """Heading of a transform: the angle from the target's x axis to the source's, about the target's z."""
    rotation = np.asarray(matrix, dtype=np.float64)
    return float(np.arctan2(rotation[1, 0], rotation[0, 0]))


def wrap_angle(angle: ArrayLike) -> Array:
    """Angles brought into [-pi, pi)."""
    return (np.asarray(angle, dtype=np.float64) + np.pi) % (2 * np.pi) - np.pi
