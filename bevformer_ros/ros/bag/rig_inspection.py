"""A rig against a bag: what the cameras see by its account, and what about that is implausible."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bevformer_ros import geometry
from bevformer_ros.config import RigConfig
from bevformer_ros.ros.bag.files import BagReader
from bevformer_ros.ros.bag.scene import BagScene, scene_at
from bevformer_ros.ros.node.rig_check import (
    FARTHEST_HEADING_DEG,
    angle_between,
    description,
    heading_of_name,
    suspicions,
    view_of,
)
from bevformer_ros.ros.topics import BoxTopics
from bevformer_ros.ros.transform_tree import NoTransformError
from bevformer_ros.types import Detections3D, SurroundFrame

BevRange = tuple[float, float, float, float, float, float]

_MODEL_ABOVE_ROAD = 1.84  # metres: the height of the nuScenes lidar, which the models have learned
_SENSIBLE_HEIGHTS = (0.7, 3.5)  # of cameras above it


@dataclass(frozen=True)
class RigInspection:
    """boxes: of the bag's truth, none without it. bev_from_road: (4, 4), of the base frame moved up or down to
    where the model believes the road. problems: what is implausible."""

    frame: SurroundFrame
    boxes: Detections3D
    bev_from_road: NDArray[np.float64]
    description: str
    problems: tuple[str, ...]


def inspect_rig(
    rig: RigConfig, path: Path, topics: BoxTopics, bev_range: BevRange, seconds: float | None
) -> RigInspection:
    """At `seconds` after the bag's start, or in its middle where None.

    topics: of the truth, which the bag may lack. bev_range: of the model, x, y, z minima, then maxima.
    Raises ValueError where the bag does not hold what the rig names, or no poses.
    """
    try:
        frame, boxes, bev_from_base = scene_at(path, rig, topics, seconds)
    except NoTransformError as error:
        raise ValueError(f"{path}: {error}; do the frames of the rig have these names in tf?") from error
    with BagReader(path) as bag:
        scene = BagScene(bag, rig)
        image_frames, (_, absent) = scene.image_frames(), scene.frame_and_absences(frame.stamp_ns)
    problems = suspicions(frame, geometry.invert(bev_from_base), image_frames)
    bev_from_road = bev_from_base.copy()
    bev_from_road[2, 3] = -_MODEL_ABOVE_ROAD
    return RigInspection(
        frame,
        Detections3D.empty(frame.stamp_ns) if boxes is None else boxes,
        bev_from_road,
        description(frame, bev_range),
        (*map(str, problems), *_of_cameras(rig, frame, absent)),
    )


def _of_cameras(rig: RigConfig, frame: SurroundFrame, absent: dict[str, str]) -> list[str]:
    found = []
    for config, camera in zip(rig.cameras, frame.cameras, strict=True):
        if camera is None:
            found.append(f"{config.name}: {absent[config.name]}")
            continue
        height = geometry.invert(camera.camera_from_bev)[2, 3] + _MODEL_ABOVE_ROAD
        if not _SENSIBLE_HEIGHTS[0] <= height <= _SENSIBLE_HEIGHTS[1]:
            found.append(f"{config.name}: {height:.2f} m above the road; is the z of bev_frame right?")
        heading = view_of(camera).heading
        other = heading_of_name(config.model_camera or "")
        if other is not None and angle_between(heading, other) > FARTHEST_HEADING_DEG:
            found.append(f"{config.name}: looks {heading:+.0f}° to the left of forward; is it a {config.model_camera}?")
    return found
