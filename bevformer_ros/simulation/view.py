"""A camera at one instant in the world, and polygons clipped and projected into its image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bevformer_ros import geometry
from bevformer_ros.simulation.rig import SimulatedCamera

Array = NDArray[np.float64]

NEAR = 0.15  # metres; nothing nearer to the optical centre is drawn
SUBPIXEL_BITS = 4
_GUARD = 4096.0  # pixels around the image beyond which polygons are clipped: keeps cv2's fixed point in range


@dataclass(frozen=True)
class View:
    """camera_from_world: (4, 4), optical frame. position: (3,) of the optical centre in the world."""

    camera: SimulatedCamera
    camera_from_world: Array
    position: Array

    @classmethod
    def of(cls, camera: SimulatedCamera, world_from_base: Array) -> View:
        world_from_camera = world_from_base @ camera.base_from_camera
        return cls(camera, geometry.invert(world_from_camera), world_from_camera[:3, 3])

    def polygon(self, points_world: Array) -> NDArray[np.int32] | None:
        """A plane polygon (n, 3) as fixed-point pixels (m, 2) for cv2; None where nothing of it lies in view."""
        return self.polygon_of_camera_points(geometry.apply(self.camera_from_world, points_world))

    def polygons(self, corners_camera: Array) -> list[NDArray[np.int32] | None]:
        """What `polygon_of_camera_points` gives for each of many polygons (m, k, 3) of k corners, in one go."""
        depths = corners_camera[..., 2]
        pixels = (corners_camera @ self.camera.intrinsics.T)[..., :2] / np.maximum(depths, NEAR)[..., None]
        low, high = pixels.min(axis=1), pixels.max(axis=1)
        whole = (depths > NEAR).all(axis=1) & (low > -_GUARD).all(axis=1) & (high < _GUARD).all(axis=1)
        outside = whole & ((high < -1).any(axis=1) | (low > (self.camera.width, self.camera.height)).any(axis=1))
        outside |= (depths <= NEAR).all(axis=1)
        outlines: list[NDArray[np.int32] | None] = list(fixed_point(pixels))
        for row in np.flatnonzero(outside):
            outlines[row] = None
        for row in np.flatnonzero(~whole & ~outside):
            outlines[row] = self.polygon_of_camera_points(corners_camera[row])
        return outlines

    def polygon_of_camera_points(self, points_camera: Array) -> NDArray[np.int32] | None:
        points = clip(points_camera, points_camera[:, 2] - NEAR)
        if len(points) < 3:
            return None
        pixels, _ = geometry.project(self.camera.intrinsics, points)
        if np.abs(pixels).max() > _GUARD:
            for axis, sign, limit in (
                (0, 1, 0.0),
                (0, -1, self.camera.width),
                (1, 1, 0.0),
                (1, -1, self.camera.height),
            ):
                pixels = clip(pixels, sign * (pixels[:, axis] - limit) + _GUARD / 2)
                if len(pixels) < 3:
                    return None
        low, high = pixels.min(axis=0), pixels.max(axis=0)
        if high[0] < -1 or high[1] < -1 or low[0] > self.camera.width or low[1] > self.camera.height:
            return None
        return fixed_point(pixels)


def fixed_point(pixels: Array) -> NDArray[np.int32]:
    """Pixels (..., 2) with pixel centres at integers, as cv2's drawing functions take them with SUBPIXEL_BITS."""
    return np.round(pixels * (1 << SUBPIXEL_BITS)).astype(np.int32)


def clip(points: Array, inside: Array) -> Array:
    """The polygon (n, d) cut to where the signed distances `inside` (n,) are >= 0 (Sutherland and Hodgman)."""
    keep = inside >= 0
    if keep.all():
        return points
    next_row = np.arange(1, len(points) + 1) % len(points)
    following, following_inside = points[next_row], inside[next_row]
    crosses = keep != (following_inside >= 0)
    share = inside / np.where(crosses, inside - following_inside, 1.0)
    crossings = points + share[:, None] * (following - points)
    merged = np.stack([points, crossings], axis=1).reshape(-1, points.shape[1])
    return merged[np.stack([keep, crosses], axis=1).reshape(-1)]
