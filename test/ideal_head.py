"""The inverse of decoding: raw outputs that a perfect perspective head would give for known boxes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from bevformer_ros import geometry
from bevformer_ros.model.config import PerspectiveHeadConfig
from bevformer_ros.model.perspective_head import PerspectiveLevel
from bevformer_ros.types import Detections3D

# Feature levels are for boxes whose farthest side lies within this many pixels, as in training.
LEVEL_LIMITS = (64, 128, 256, 512, np.inf)
MINIMUM_VISIBLE_SHARE = 0.2
SURE = 6.0


class View(NamedTuple):
    """One camera; image_size: width, height of the network's input."""

    intrinsics: NDArray[np.float64]
    camera_from_bev: NDArray[np.float64]
    image_size: tuple[int, int]


class Seen(NamedTuple):
    """An object in one camera; box2d: left, top, right, bottom, cut at the image's border."""

    row: int
    box2d: NDArray[np.float64]
    center: NDArray[np.float64]


def visible_objects(boxes: Detections3D, view: View, depth_range: tuple[float, float]) -> list[Seen]:
    """Objects wholly in front of the camera with at least a fifth of their 2D box in the image (as in training)."""
    size = np.array(view.image_size, dtype=np.float64)
    seen = []
    for row, corners_bev in enumerate(boxes.corners()):
        corners = geometry.apply(view.camera_from_bev, corners_bev)
        center = geometry.apply(view.camera_from_bev, boxes.centers[row])
        if corners[:, 2].min() <= depth_range[0] or center[2] >= depth_range[1]:
            continue
        pixels, _ = geometry.project(view.intrinsics, corners)
        low, high = pixels.min(axis=0), pixels.max(axis=0)
        cut_low, cut_high = np.clip(low, 0, size), np.clip(high, 0, size)
        if np.prod(cut_high - cut_low) >= MINIMUM_VISIBLE_SHARE * np.prod(high - low):
            seen.append(Seen(row, np.concatenate([cut_low, cut_high]), center))
    return seen


def ideal_outputs(
    boxes: Detections3D, views: list[View], config: PerspectiveHeadConfig
) -> tuple[list[PerspectiveLevel], list[list[Seen]]]:
    """Raw outputs of every level for all views, and what each view sees."""
    seen_by_view = [visible_objects(boxes, view, config.depth_range) for view in views]
    levels = [_blank_level(len(views), view_shape(views[0], stride), config) for stride in config.strides]
    for image, (view, seen) in enumerate(zip(views, seen_by_view, strict=True)):
        taken: set[tuple[int, int, int]] = set()
        # One place for each object, then, as in training, all around its centre; the smaller box chooses first.
        for share in (1, None):
            for entry in sorted(seen, key=lambda entry: np.prod(entry.box2d[2:] - entry.box2d[:2])):
                for level, row, column in _free_places(entry.box2d, taken, levels, config.strides)[:share]:
                    taken.add((level, row, column))
                    _write(levels[level], (image, row, column), config.strides[level], entry, boxes, view, config)
    return levels, seen_by_view


def view_shape(view: View, stride: int) -> tuple[int, int]:
    """Rows, columns of a feature level."""
    return -(-view.image_size[1] // stride), -(-view.image_size[0] // stride)


def _blank_level(images: int, shape: tuple[int, int], config: PerspectiveHeadConfig) -> PerspectiveLevel:
    classes = len(config.canonical_sizes)
    channels = {
        "class_logits": classes,
        "box2d": 4,
        "centerness": 1,
        "quaternions": 4 * classes,
        "center_offsets": 2 * classes,
        "depths": classes,
        "sizes": 3 * classes,
        "confidences": classes,
        "attributes": 3,
        "speeds": 1,
    }
    level = PerspectiveLevel(**{name: torch.zeros(images, count, *shape) for name, count in channels.items()})
    level.class_logits.fill_(-SURE)
    return level


def _free_places(
    box2d: NDArray[np.float64],
    taken: set[tuple[int, int, int]],
    levels: list[PerspectiveLevel],
    strides: tuple[int, ...],
) -> list[tuple[int, int, int]]:
    """Free (level, row, column) near the 2D box's centre, nearest first."""
    center, half = (box2d[:2] + box2d[2:]) / 2, (box2d[2:] - box2d[:2]) / 2
    level = next(level for level, limit in enumerate(LEVEL_LIMITS) if half.max() <= limit)
    stride = strides[level]
    column, row = center / stride
    rows, columns = levels[level].class_logits.shape[2:]
    near = {
        (level, r, c): max(abs(r - row), abs(c - column))
        for r in range(max(0, int(np.ceil(row - 1.5))), min(rows, int(row + 1.5) + 1))
        for c in range(max(0, int(np.ceil(column - 1.5))), min(columns, int(column + 1.5) + 1))
    }
    return sorted(near.keys() - taken, key=near.__getitem__)


def _write(
    level: PerspectiveLevel,
    place: tuple[int, int, int],
    stride: int,
    entry: Seen,
    boxes: Detections3D,
    view: View,
    config: PerspectiveHeadConfig,
) -> None:
    image, row, column = place
    label = int(boxes.labels[entry.row])
    location = np.array([column, row]) * stride
    sides = np.concatenate([location - entry.box2d[:2], entry.box2d[2:] - location]).clip(min=0.5)
    centerness = np.sqrt(np.prod(np.minimum(sides[:2], sides[2:]) / np.maximum(sides[:2], sides[2:])))
    pixel, depth = geometry.project(view.intrinsics, entry.center)
    pixel_size = np.hypot(1 / view.intrinsics[0, 0], 1 / view.intrinsics[1, 1])
    ratio = boxes.sizes[entry.row] / np.array(config.canonical_sizes[label])

    def put(values: torch.Tensor, content: object) -> None:
        """Into the channels of the object's class."""
        content = torch.as_tensor(np.atleast_1d(content), dtype=torch.float32)
        values[image].unflatten(0, (len(content), -1))[:, label, row, column] = content

    put(level.class_logits, SURE)
    put(level.quaternions, _allocentric_quaternion(boxes.yaws[entry.row], pixel, view))
    put(level.center_offsets, pixel - location)
    put(level.depths, depth * pixel_size * config.reference_focal_length)
    put(level.sizes, np.arctanh(ratio[[1, 0, 2]] - 1))
    put(level.confidences, SURE)
    level.box2d[image, :, row, column] = torch.as_tensor(sides)
    level.centerness[image, 0, row, column] = float(np.log(centerness / (1 - centerness + 1e-6)))
    level.attributes[image, max(int(boxes.attributes[entry.row]), 0) % 3, row, column] = SURE
    level.speeds[image, 0, row, column] = float(np.linalg.norm(boxes.velocities[entry.row]))


def _allocentric_quaternion(yaw: float, pixel: NDArray[np.float64], view: View) -> NDArray[np.float64]:
    """(w, x, y, z) of the object's rotation relative to the ray through the pixel."""
    ray = np.linalg.inv(view.intrinsics) @ np.array([*pixel, 1.0])
    z = ray / np.linalg.norm(ray)
    y = np.array([0.0, 1.0, 0.0]) - z[1] * z
    y /= np.linalg.norm(y)
    camera_from_ray = np.stack([np.cross(y, z), y, z], axis=-1)
    camera_from_object = view.camera_from_bev[:3, :3] @ Rotation.from_euler("z", yaw).as_matrix()
    return Rotation.from_matrix(camera_from_ray.T @ camera_from_object).as_quat()[[3, 0, 1, 2]]
