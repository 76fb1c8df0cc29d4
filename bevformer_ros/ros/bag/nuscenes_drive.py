"""A scene of nuScenes as the car's topics would have been, every message at its own time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nuscenes import NuScenes
from tqdm import tqdm

from bevformer_ros.config import RigConfig
from bevformer_ros.datasets.nuscenes_tables import (
    pose_matrix,
    sample_annotations,
    samples_of_scene,
    stamp_ns,
)
from bevformer_ros.ros.bag.camera_messages import image_file_message, info_message
from bevformer_ros.ros.bag.files import BagWriter, Storage
from bevformer_ros.ros.conversions import (
    detections_to_message,
    kinematics_to_message,
    transform_to_message,
    vector_message,
)
from bevformer_ros.ros.messages import TFMessage
from bevformer_ros.ros.topics import LIDAR_FRAME, TRUTH


@dataclass(frozen=True)
class _Scene:
    """One scene's records. data: those of its cameras and its lidar, keyframes and sweeps, in order of time."""

    dataset: NuScenes
    samples: list[dict[str, Any]]
    data: list[dict[str, Any]]


def nuscenes_to_bag(dataset: NuScenes, scene: str, path: Path, rig: RigConfig, storage: Storage = "mcap") -> int:
    """Write the scene under the rig's topics; returns the number of images.

    Cameras at their 12 Hz, sweeps and keyframes alike; JPEG files byte by byte. Ego poses are in /tf at the stamp of
    every image and lidar sweep, in the rig's fixed frame, which is the data set's global one. The truth stands at
    the keyframes' lidar stamps: objects that at least one lidar or radar point shows, ids being instance tokens, a
    velocity that is not known being NaN. Memory does not grow with the images.
    """
    records = _records(dataset, scene, rig)
    with BagWriter(path, storage, replace_unfinished=True) as bag:
        bag.add_topic("/tf_static", "tf2_msgs/msg/TFMessage", latched=True)
        bag.write("/tf_static", _static_transforms(records, rig), stamp_ns(records.data[0]))
        known_poses: set[int] = set()
        truths = {sample["data"][LIDAR_FRAME]: sample for sample in records.samples}
        for record in tqdm(records.data, desc=scene, unit="message"):
            stamp = stamp_ns(record)
            if stamp not in known_poses:
                known_poses.add(stamp)
                bag.write("/tf", _pose(records, rig, record), stamp)
            for topic, message in _camera_messages(records, rig, record):
                bag.write(topic, message, stamp)
            if record["token"] in truths:
                for topic, message in _truth(records, rig, truths[record["token"]]):
                    bag.write(topic, message, stamp)
    return sum(record["channel"] != LIDAR_FRAME for record in records.data)


def _records(dataset: NuScenes, scene: str, rig: RigConfig) -> _Scene:
    samples = samples_of_scene(dataset, scene)
    tokens = {sample["token"] for sample in samples}
    wanted = {LIDAR_FRAME, *(camera.name for camera in rig.cameras)}
    data = [entry for entry in dataset.sample_data if entry["sample_token"] in tokens and entry["channel"] in wanted]
    missing = sorted(wanted - {entry["channel"] for entry in data})
    if missing:
        raise ValueError(f"{scene} has no data of {', '.join(missing)}, which the rig names")
    return _Scene(dataset, samples, sorted(data, key=lambda entry: (entry["timestamp"], entry["channel"])))


def _static_transforms(records: _Scene, rig: RigConfig) -> TFMessage:
    mounts: dict[str, str] = {}
    for record in records.data:
        mounts.setdefault(record["channel"], record["calibrated_sensor_token"])
    return TFMessage(
        transforms=[
            transform_to_message(
                pose_matrix(records.dataset.get("calibrated_sensor", token)),
                rig.base_frame,
                channel,
                stamp_ns(records.data[0]),
            )
            for channel, token in mounts.items()
        ]
    )


def _pose(records: _Scene, rig: RigConfig, record: dict[str, Any]) -> TFMessage:
    pose = pose_matrix(records.dataset.get("ego_pose", record["ego_pose_token"]))
    return TFMessage(transforms=[transform_to_message(pose, rig.fixed_frame, rig.base_frame, stamp_ns(record))])


def _camera_messages(records: _Scene, rig: RigConfig, record: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for camera in rig.cameras:
        if camera.name == record["channel"]:
            calibration = records.dataset.get("calibrated_sensor", record["calibrated_sensor_token"])
            shape, stamp = (record["height"], record["width"]), stamp_ns(record)
            yield camera.camera_info_topic, info_message(camera, stamp, shape, calibration["camera_intrinsic"])
            file = Path(records.dataset.dataroot) / record["filename"]
            yield camera.image_topic, image_file_message(camera, stamp, file)


def _truth(records: _Scene, rig: RigConfig, sample: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    found = sample_annotations(records.dataset, sample)
    kinematics = kinematics_to_message(found.boxes, rig.base_frame, ids=found.instances)
    for row, extra in enumerate(kinematics.detections):
        extra.visibility = int(found.visibility[row])
        if not found.velocity_known[row]:
            extra.velocity.twist.linear = vector_message(np.full(3, np.nan))
    yield TRUTH.boxes, detections_to_message(found.boxes, rig.base_frame, ids=found.instances)
    yield TRUTH.kinematics, kinematics
