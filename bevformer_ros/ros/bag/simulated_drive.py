"""A drive through the simulated world as a bag, with exact ground truth."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bevformer_ros.config import RigConfig
from bevformer_ros.ros.bag.files import BagWriter, Storage
from bevformer_ros.ros.conversions import (
    camera_info,
    detections_to_message,
    header_of,
    image_to_message,
    jpeg_to_message,
    kinematics_to_message,
    transform_to_message,
)
from bevformer_ros.ros.messages import TFMessage
from bevformer_ros.ros.topics import LIDAR_FRAME, TRUTH
from bevformer_ros.simulation.drive import Drive
from bevformer_ros.simulation.observe import Observation, observe
from bevformer_ros.simulation.rig import BASE_FROM_LIDAR, SimulatedCamera, configured_camera, surround_rig
from bevformer_ros.simulation.sensor import published
from bevformer_ros.simulation.world import START_NS, World
from bevformer_ros.types import SECOND_NS

_POSE_RATE = 100.0  # transforms a second
_JPEG_QUALITY = 92


@dataclass(frozen=True, order=True)
class _Record:
    stamp_ns: int
    order: int
    topic: str
    message: Any


def simulate(
    path: str | Path,
    rig: RigConfig,
    drive: Drive,
    storage: Storage = "mcap",
    cameras: tuple[SimulatedCamera, ...] | None = None,
) -> None:
    """Write the drive as the rig's topics into a new bag; messages lie in it in the order of their stamps.

    cameras: those of the rig, in its order; None for what `cameras_of` makes of it. Raises ValueError as that does.
    """
    cameras = cameras or cameras_of(rig, drive.size)
    world = drive.world()
    with BagWriter(path, storage, replace_unfinished=True) as bag:
        bag.add_topic("/tf_static", "tf2_msgs/msg/TFMessage", latched=True)
        calibrated = [published(camera, drive.sensor, drive.seed) for camera in cameras]
        bag.write("/tf_static", static_transforms(rig, calibrated), START_NS)
        records = heapq.merge(_poses(world, rig, drive.end_ns), _sets(drive, world, rig, cameras))
        for record in records:
            bag.write(record.topic, record.message, record.stamp_ns)


def cameras_of(rig: RigConfig, size: tuple[int, int]) -> tuple[SimulatedCamera, ...]:
    """The rig's cameras as it describes them, else those of the nuScenes car with images of a size. Raises ValueError
    for a camera that neither knows."""
    ours = {camera.name: camera for camera in surround_rig(*size)}
    strangers = [camera.name for camera in rig.cameras if camera.simulated is None and camera.name not in ours]
    if strangers:
        raise ValueError(
            f"the simulated car has no camera {', '.join(strangers)}; the rig may name {', '.join(ours)}, or describe "
            "its own under simulated"
        )
    return tuple(
        replace(ours[camera.name], field_of_view_deg=camera.field_of_view_deg)
        if camera.simulated is None
        else configured_camera(camera.name, camera.simulated, camera.exposure_offset_ms, camera.field_of_view_deg)
        for camera in rig.cameras
    )


def static_transforms(rig: RigConfig, cameras: Iterable[SimulatedCamera]) -> TFMessage:
    mounts = [(LIDAR_FRAME, BASE_FROM_LIDAR), *((camera.name, camera.base_from_camera) for camera in cameras)]
    return TFMessage(transforms=[transform_to_message(pose, rig.base_frame, name, START_NS) for name, pose in mounts])


def _poses(world: World, rig: RigConfig, end_ns: int) -> Iterator[_Record]:
    for index in range(round((end_ns - START_NS) / SECOND_NS * _POSE_RATE) + 1):
        stamp = START_NS + round(index * SECOND_NS / _POSE_RATE)
        pose = transform_to_message(world.world_from_base(stamp), rig.fixed_frame, rig.base_frame, stamp)
        yield _Record(stamp, -1, "/tf", TFMessage(transforms=[pose]))


def _sets(drive: Drive, world: World, rig: RigConfig, cameras: tuple[SimulatedCamera, ...]) -> Iterator[_Record]:
    """All sets, their messages sorted across sets: a late camera of one may fire after an early one of the next."""
    earliest = min(camera.exposure_offset_ns for camera in cameras)
    waiting: list[_Record] = []
    count = 0
    for stamp in tqdm(drive.reference_stamps, desc="rendering", unit="set"):
        while waiting and waiting[0].stamp_ns < stamp + earliest:
            yield heapq.heappop(waiting)
        for stamp_ns, topic, message in _messages(observe(world, cameras, BASE_FROM_LIDAR, stamp, drive.sensor), rig):
            heapq.heappush(waiting, _Record(stamp_ns, count, topic, message))
            count += 1
    while waiting:
        yield heapq.heappop(waiting)


def _messages(observation: Observation, rig: RigConfig) -> Iterator[tuple[int, str, Any]]:
    for config, camera in zip(rig.cameras, observation.frame.cameras, strict=True):
        assert camera is not None
        header = header_of(camera.stamp_ns, camera.name)
        info = camera_info(header, camera.image.shape, camera.intrinsics, camera.lens)
        yield camera.stamp_ns, config.camera_info_topic, info
        if config.compressed:
            image = jpeg_to_message(_jpeg(camera.image), header)
        else:
            image = image_to_message(camera.image, header)
        yield camera.stamp_ns, config.image_topic, image
    stamp = observation.frame.stamp_ns
    truth = observation.truth.transformed(BASE_FROM_LIDAR)
    ids = [str(identity) for identity in observation.object_ids]
    yield stamp, TRUTH.boxes, detections_to_message(truth, rig.base_frame, ids=ids)
    kinematics = kinematics_to_message(truth, rig.base_frame, ids=ids)
    for entry, level in zip(kinematics.detections, observation.visibility.tolist(), strict=True):
        entry.visibility = level
    yield stamp, TRUTH.kinematics, kinematics


def _jpeg(image: NDArray[np.uint8]) -> bytes:
    ok, data = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY))
    assert ok
    return data.tobytes()
