"""One recorded keyframe, a folder with a frame.json (see keyframe.py), as a bag."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bevformer_ros.config import CameraConfig, RigConfig
from bevformer_ros.datasets.keyframe import keyframe_truth, load_keyframe
from bevformer_ros.ros.bag.camera_messages import image_file_message, info_message
from bevformer_ros.ros.bag.files import BagWriter, Storage
from bevformer_ros.ros.conversions import detections_to_message, kinematics_to_message, transform_to_message
from bevformer_ros.ros.messages import TFMessage
from bevformer_ros.ros.topics import LIDAR_FRAME, TRUTH


def keyframe_to_bag(folder: Path, path: Path, rig: RigConfig, storage: Storage = "mcap") -> int:
    """Write the keyframe under the rig's topics; returns the number of boxes.

    JPEG files go into CompressedImage byte by byte; a rig with raw topics gets them decoded. Poses are in tf at the
    stamps of the lidar and of every camera, so that a lookup at any of these is exact.
    """
    frame = load_keyframe(folder)
    strangers = [camera.name for camera in rig.cameras if camera.name not in frame["cameras"]]
    if strangers:
        raise ValueError(f"{folder} has no camera {', '.join(strangers)}; it has {', '.join(frame['cameras'])}")
    messages = [*_poses(frame, rig), *_truth(frame)]
    for camera in rig.cameras:
        messages += _camera_messages(folder, frame["cameras"][camera.name], camera)
    messages.sort(key=lambda entry: entry[0])
    with BagWriter(path, storage, replace_unfinished=True) as bag:
        bag.add_topic("/tf_static", "tf2_msgs/msg/TFMessage", latched=True)
        bag.write("/tf_static", _static_transforms(frame, rig), messages[0][0])
        for stamp_ns, topic, message in messages:
            bag.write(topic, message, stamp_ns)
    return len(keyframe_truth(frame))


def _static_transforms(frame: dict[str, Any], rig: RigConfig) -> TFMessage:
    mounts = {LIDAR_FRAME: frame["lidar_to_ego"]}
    mounts |= {camera.name: frame["cameras"][camera.name]["camera_to_ego"] for camera in rig.cameras}
    stamp_ns = frame["timestamp_ns"]
    return TFMessage(
        transforms=[
            transform_to_message(np.array(pose), rig.base_frame, name, stamp_ns) for name, pose in mounts.items()
        ]
    )


def _poses(frame: dict[str, Any], rig: RigConfig) -> Iterator[tuple[int, str, Any]]:
    poses = {frame["timestamp_ns"]: frame["ego_to_global"]}
    poses |= {camera["timestamp_ns"]: camera["ego_to_global"] for camera in frame["cameras"].values()}
    for stamp_ns, pose in poses.items():
        message = transform_to_message(np.array(pose), rig.fixed_frame, rig.base_frame, stamp_ns)
        yield stamp_ns, "/tf", TFMessage(transforms=[message])


def _truth(frame: dict[str, Any]) -> Iterator[tuple[int, str, Any]]:
    truth = keyframe_truth(frame)
    yield truth.stamp_ns, TRUTH.boxes, detections_to_message(truth, LIDAR_FRAME)
    yield truth.stamp_ns, TRUTH.kinematics, kinematics_to_message(truth, LIDAR_FRAME)


def _camera_messages(folder: Path, camera: dict[str, Any], config: CameraConfig) -> Iterator[tuple[int, str, Any]]:
    stamp_ns, shape = camera["timestamp_ns"], (camera["height"], camera["width"])
    yield stamp_ns, config.camera_info_topic, info_message(config, stamp_ns, shape, camera["intrinsics"])
    yield stamp_ns, config.image_topic, image_file_message(config, stamp_ns, folder / camera["image"])
