"""The simulated car's cameras, as data: the layout of a nuScenes car in round numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bevformer_ros import geometry
from bevformer_ros.config import SimulatedCameraConfig
from bevformer_ros.lens import PINHOLE, Lens
from bevformer_ros.types import MILLISECOND_NS

Array = NDArray[np.float64]

_FULL_WIDTH, _FULL_HEIGHT = 1600, 900
# From camera axes (x right, y down, z forward) to axes like the base frame's (x forward, y left, z up).
_FORWARD_FROM_OPTICAL = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])

# Where nuScenes mounts its lidar, whose frame (x right, y forward, z up) the models think in.
BASE_FROM_LIDAR = geometry.transform_from_rpy((0.943713, 0.0, 1.840230), (0.0, 0.0, -np.pi / 2))


@dataclass(frozen=True)
class SimulatedCamera:
    """intrinsics: (3, 3), pixel centres at integers. base_from_camera: (4, 4), optical frame. exposure_offset_ns: its
    exposure relative to the reference camera's. lens, field_of_view_deg: as in CameraImage."""

    name: str
    width: int
    height: int
    intrinsics: Array
    base_from_camera: Array
    exposure_offset_ns: int
    lens: Lens = PINHOLE
    field_of_view_deg: float | None = None


@dataclass(frozen=True)
class _Mounting:
    """focal, principal: pixels at 1600x900. position: metres in the base frame. yaw: degrees left of ahead."""

    name: str
    focal: float
    principal: tuple[float, float]
    position: tuple[float, float, float]
    yaw: float
    exposure_offset_ms: float


_MOUNTINGS = (
    _Mounting("CAM_FRONT", 1266.0, (816.0, 492.0), (1.70, 0.00, 1.51), 0.0, 0.0),
    _Mounting("CAM_FRONT_RIGHT", 1261.0, (808.0, 495.0), (1.55, -0.49, 1.50), -56.0, 8.0),
    _Mounting("CAM_FRONT_LEFT", 1272.0, (826.0, 480.0), (1.52, 0.49, 1.51), 55.0, -8.0),
    _Mounting("CAM_BACK", 809.0, (829.0, 482.0), (0.03, 0.00, 1.58), 180.0, 25.0),
    _Mounting("CAM_BACK_LEFT", 1257.0, (792.0, 493.0), (1.04, 0.48, 1.59), 109.0, 35.0),
    _Mounting("CAM_BACK_RIGHT", 1260.0, (807.0, 501.0), (1.01, -0.48, 1.56), -111.0, 15.0),
)


def surround_rig(width: int = _FULL_WIDTH, height: int = _FULL_HEIGHT) -> tuple[SimulatedCamera, ...]:
    """The six cameras at an image size, in the order of the released models. Raises ValueError for an empty image."""
    if width < 1 or height < 1:
        raise ValueError(f"image size is {width}x{height}, expected at least 1x1")
    return tuple(_mounted(mounting, width, height) for mounting in _MOUNTINGS)


def configured_camera(
    name: str, config: SimulatedCameraConfig, exposure_offset_ms: float, field_of_view_deg: float | None
) -> SimulatedCamera:
    """A camera as a rig describes it."""
    width, height = config.size
    center = config.principal_point or ((width - 1) / 2, (height - 1) / 2)
    intrinsics = np.array([[config.focal_length, 0.0, center[0]], [0.0, config.focal_length, center[1]], [0, 0, 1]])
    base_from_mount = geometry.transform_from_rpy(config.position, config.roll_pitch_yaw)
    return SimulatedCamera(
        name,
        width,
        height,
        intrinsics,
        base_from_mount @ _FORWARD_FROM_OPTICAL,
        round(exposure_offset_ms * MILLISECOND_NS),
        Lens(config.lens, config.distortion),
        field_of_view_deg,
    )


def _mounted(mounting: _Mounting, width: int, height: int) -> SimulatedCamera:
    scale_x, scale_y = width / _FULL_WIDTH, height / _FULL_HEIGHT
    intrinsics = np.array(
        [
            [mounting.focal * scale_x, 0.0, (mounting.principal[0] + 0.5) * scale_x - 0.5],
            [0.0, mounting.focal * scale_y, (mounting.principal[1] + 0.5) * scale_y - 0.5],
            [0.0, 0.0, 1.0],
        ]
    )
    base_from_mount = geometry.transform_from_rpy(mounting.position, (0.0, 0.0, np.deg2rad(mounting.yaw)))
    return SimulatedCamera(
        mounting.name,
        width,
        height,
        intrinsics,
        base_from_mount @ _FORWARD_FROM_OPTICAL,
        round(mounting.exposure_offset_ms * MILLISECOND_NS),
    )
