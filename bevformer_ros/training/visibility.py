"""Which objects a camera has in its image, judged by their boxes alone."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from bevformer_ros import geometry
from bevformer_ros.types import SECOND_NS, CameraImage, Detections3D

_NEAR = 0.1  # metres; what lies nearer to the optical centre is cut off
_EDGES = np.array(geometry.BOX_EDGES)


def shown_by(camera: CameraImage, boxes: Detections3D) -> NDArray[np.bool_]:
    """(n,) whether some part of each box projects into the image; whether anything stands before it is not known.

    boxes: in the BEV frame at their stamp, from where they move on until the camera exposes.
    """
    corners = geometry.apply(camera.camera_from_bev, at_exposure(camera, boxes).corners())
    height, width = camera.image.shape[:2]
    return np.array([_box_shows(box, camera.intrinsics, width, height) for box in corners], np.bool_)


def at_exposure(camera: CameraImage, boxes: Detections3D) -> Detections3D:
    """The boxes (in the BEV frame at their stamp) where they have moved on to when the camera exposes."""
    delay = (camera.stamp_ns - boxes.stamp_ns) / SECOND_NS
    return replace(boxes, centers=boxes.centers + delay * np.pad(boxes.velocities, ((0, 0), (0, 1))))


def _box_shows(corners: NDArray[np.float64], intrinsics: NDArray[np.float64], width: int, height: int) -> bool:
    points = _in_front(corners)
    if len(points) < 3:
        return False
    pixels, _ = geometry.project(intrinsics, points)
    return _meets_image(cv2.convexHull(pixels.astype(np.float32))[:, 0].astype(np.float64), width, height)


def _in_front(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corners (m, 3) of that part of a box, given by its corners (8, 3) in the camera frame, which is in front."""
    start, end = corners[_EDGES[:, 0]], corners[_EDGES[:, 1]]
    crossing = (start[:, 2] < _NEAR) != (end[:, 2] < _NEAR)
    start, end = start[crossing], end[crossing]
    share = (_NEAR - start[:, 2]) / (end[:, 2] - start[:, 2])
    return np.concatenate([corners[corners[:, 2] >= _NEAR], start + share[:, None] * (end - start)])


def _meets_image(hull: NDArray[np.float64], width: int, height: int) -> bool:
    """Whether a convex polygon (m, 2) and the image overlap: no side of either separates them."""
    low, high = np.array([-0.5, -0.5]), np.array([width - 0.5, height - 0.5])
    if (hull.max(axis=0) <= low).any() or (hull.min(axis=0) >= high).any():
        return False
    image = np.array([[x, y] for x in (low[0], high[0]) for y in (low[1], high[1])])
    sides = np.roll(hull, -1, axis=0) - hull

    def side_of(points: NDArray[np.float64]) -> NDArray[np.float64]:
        """(m, points) more than zero on one side of the line through each side of the polygon."""
        offset = points[None] - hull[:, None]
        return sides[:, None, 0] * offset[..., 1] - sides[:, None, 1] * offset[..., 0]

    inner = np.sign(side_of(hull.mean(axis=0)[None]))
    return not bool((side_of(image) * inner < 0).all(axis=1).any())
