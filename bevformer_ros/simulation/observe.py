"""One look at the world with all cameras: the frame the pipeline takes, and the exact truth about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bevformer_ros import geometry
from bevformer_ros.simulation.render import SCENERY, render
from bevformer_ros.simulation.rig import SimulatedCamera
from bevformer_ros.simulation.sensor import PERFECT, SensorConfig, expose, published
from bevformer_ros.simulation.wide_angle import render_through_lens
from bevformer_ros.simulation.world import World
from bevformer_ros.types import CameraImage, Detections3D, SurroundFrame

TRUTH_RANGE = 51.2  # metres along x and y of the BEV frame: what the models cover
_VISIBILITY_LIMITS = (0.4, 0.6, 0.8)
_MINIMUM_VISIBLE_AREA = 1.2e-4  # share of one image; about 43 pixels at 800x450


@dataclass(frozen=True)
class Observation:
    """truth: the visible objects in the BEV frame at the frame's stamp. object_ids: (n,) index into world.objects,
    the same for one object from frame to frame. visible: (n, N), which of the N cameras show which object. visibility:
    (n,) how much of it all cameras together show, 1 to 4 as nuScenes grades it."""

    frame: SurroundFrame
    truth: Detections3D
    object_ids: NDArray[np.int64]
    visible: NDArray[np.bool_]
    visibility: NDArray[np.int64]


def observe(
    world: World,
    rig: tuple[SimulatedCamera, ...],
    base_from_bev: NDArray[np.float64],
    stamp_ns: int,
    sensor: SensorConfig = PERFECT,
) -> Observation:
    """Expose every camera at its own offset from the reference stamp; truth holds what at least one camera shows.

    The frame's geometry is what the calibration says, which `sensor` may put a little off what the pictures show.
    """
    world_from_bev = world.world_from_base(stamp_ns) @ base_from_bev
    visible = np.zeros((len(world.objects.labels), len(rig)), np.bool_)
    shown, whole = np.zeros((2, len(visible)), np.int64)
    cameras = []
    for column, camera in enumerate(rig):
        exposure_ns = stamp_ns + camera.exposure_offset_ns
        picture = (render if camera.lens.is_pinhole else render_through_lens)(world, camera, exposure_ns)
        pixels = np.bincount(picture.owners.ravel() - SCENERY, minlength=len(visible) + 1)[1:]
        visible[:, column] = pixels >= _MINIMUM_VISIBLE_AREA * picture.owners.size
        shown += pixels
        whole += picture.whole
        image = expose(picture.image, camera, sensor, world.seed, exposure_ns)
        known = published(camera, sensor, world.seed)
        camera_from_world = geometry.invert(world.world_from_base(exposure_ns) @ known.base_from_camera)
        cameras.append(
            CameraImage(
                camera.name,
                exposure_ns,
                image,
                known.intrinsics,
                camera_from_world @ world_from_bev,
                known.lens,
                known.field_of_view_deg,
            )
        )
    frame = SurroundFrame(stamp_ns, tuple(cameras), world_from_bev, scene=f"world-{world.seed}")
    boxes = world.objects_at(stamp_ns).transformed(geometry.invert(world_from_bev))
    in_range = (np.abs(boxes.centers[:, :2]) <= TRUTH_RANGE).all(axis=1)
    object_ids = np.flatnonzero(visible.any(axis=1) & in_range)
    visibility = visibility_levels(shown[object_ids] / whole[object_ids])
    return Observation(frame, boxes.select(object_ids), object_ids, visible[object_ids], visibility)


def visibility_levels(shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """nuScenes' grades of how much of objects shows, (n,) from 0 to 1: 1 up to 40 %, 2 to 60 %, 3 to 80 %, 4 above."""
    return 1 + np.searchsorted(_VISIBILITY_LIMITS, shares)
