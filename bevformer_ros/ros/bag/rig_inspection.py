"""A rig against a bag: what the cameras see by its account, and what about that is implausible."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bevformer_ros import geometry
from bevformer_ros.config import RigConfig
from bevformer_ros.ros.bag.files import BagReader
from bevformer_ros.ros.bag.scene import BagScene
from bevformer_ros.ros.node.rig_check import description, suspicions
from bevformer_ros.ros.topics import BoxTopics
from bevformer_ros.ros.transform_tree import NoTransformError
from bevformer_ros.types import SECOND_NS, Detections3D, SurroundFrame

BevRange = tuple[float, float, float, float, float, float]

_MODEL_ABOVE_ROAD = 1.84  # metres: the height of the nuScenes lidar, which the models have learned
_SENSIBLE_HEIGHTS = (0.7, 3.5)  # of cameras above it


@dataclass(frozen=True)
class RigInspection:
    """boxes: of the bag's truth, none without it. bev_from_road: (4, 4), of the level below the BEV frame at which the
    model believes the road. problems: what is implausible."""

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
    with BagReader(path) as bag:
        scene = BagScene(bag, rig)
        (reference,) = (camera for camera in rig.cameras if camera.name == rig.reference_camera)
        with_truth = topics.boxes in bag.topics
        stamps = scene.stamps(topics.boxes if with_truth else reference.image_topic)
        if not stamps:
            raise ValueError(f"{path} has no message on {reference.image_topic}")
        wanted = (bag.start_ns + bag.end_ns) / 2 if seconds is None else bag.start_ns + seconds * SECOND_NS
        stamp_ns = min(stamps, key=lambda stamp: abs(stamp - wanted))
        try:
            frame = scene.frame(stamp_ns)
            base_from_bev = scene.base_from_bev(stamp_ns)
            boxes = scene.boxes(topics, stamp_ns) if with_truth else Detections3D.empty(stamp_ns)
        except NoTransformError as error:
            raise ValueError(f"{path}: {error}; do the frames of the rig have these names in tf?") from error
        problems = suspicions(frame, base_from_bev, scene.image_frames())
    return RigInspection(
        frame,
        boxes,
        geometry.transform_from_rpy((0.0, 0.0, -_MODEL_ABOVE_ROAD), (0.0, 0.0, 0.0)),
        description(frame, bev_range),
        (*map(str, problems), *_of_cameras(rig, frame)),
    )


def _of_cameras(rig: RigConfig, frame: SurroundFrame) -> list[str]:
    found = []
    for config, camera in zip(rig.cameras, frame.cameras, strict=True):
        if camera is None:
            found.append(f"{config.name}: no image near its expected stamp; is exposure_offset_ms right?")
            continue
        height = geometry.invert(camera.camera_from_bev)[2, 3] + _MODEL_ABOVE_ROAD
        if not _SENSIBLE_HEIGHTS[0] <= height <= _SENSIBLE_HEIGHTS[1]:
            found.append(f"{config.name}: {height:.2f} m above the road; is the z of bev_frame right?")
    return found
