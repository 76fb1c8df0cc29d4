"""Three frames of another car, recorded data beside the repository, as a bag: cameras and frames unlike nuScenes'."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bevformer_ros.datasets.keyframe import load_keyframe
from bevformer_ros.ros.bag.files import BagWriter
from bevformer_ros.ros.conversions import (
    camera_info,
    detections_to_message,
    header_of,
    jpeg_to_message,
    transform_to_message,
)
from bevformer_ros.ros.messages import TFMessage
from bevformer_ros.ros.topics import TRUTH
from bevformer_ros.taxonomy import CLASS_ID, NO_ATTRIBUTE
from bevformer_ros.types import Detections3D

WORLD, CAR, TRUTH_FRAME = "local", "vehicle", "virtual_lidar"
FRAMES = tuple(f"frame_{index}" for index in range(3))
LEAD_NS = 50_000_000


def truth_of(frame: dict[str, Any]) -> Detections3D:
    """In the frame file's virtual lidar frame."""
    objects = frame["objects"]
    count = len(objects)
    return Detections3D(
        frame["timestamp_ns"],
        centers=np.array([entry["center"] for entry in objects]),
        sizes=np.array([entry["size_lwh"] for entry in objects]),
        yaws=np.array([entry["yaw"] for entry in objects]),
        velocities=np.zeros((count, 2)),
        scores=np.ones(count),
        labels=np.array([CLASS_ID[entry["class"].lower()] for entry in objects]),
        attributes=np.full(count, NO_ATTRIBUTE),
        from_proposal=np.zeros(count, np.bool_),
    )


def write_bag(folder: Path, path: Path) -> None:
    """The JPEG files byte by byte, poses at the stamps of lidar and cameras, the truth."""
    frames = [load_keyframe(folder / name) for name in FRAMES]
    messages = sorted(
        (entry for name, frame in zip(FRAMES, frames, strict=True) for entry in _messages(folder / name, frame)),
        key=lambda entry: entry[0],
    )
    with BagWriter(path) as bag:
        bag.add_topic("/tf_static", "tf2_msgs/msg/TFMessage", latched=True)
        bag.write("/tf_static", _mounts(frames[0]), messages[0][0])
        for stamp_ns, topic, message in messages:
            bag.write(topic, message, stamp_ns)


def _mounts(frame: dict[str, Any]) -> TFMessage:
    poses = {TRUTH_FRAME: frame["lidar_to_ego"]}
    poses |= {name: camera["camera_to_ego"] for name, camera in frame["cameras"].items()}
    stamp_ns = frame["timestamp_ns"]
    return TFMessage(
        transforms=[transform_to_message(np.array(pose), CAR, name, stamp_ns) for name, pose in poses.items()]
    )


def _messages(folder: Path, frame: dict[str, Any]) -> Iterator[tuple[int, str, Any]]:
    # All cameras have one stamp, but poses of their own a millimetre or two apart, of which tf can hold but one.
    cameras = frame["cameras"].values()
    middle = list(cameras)[len(cameras) // 2]
    for stamped in (frame, middle):
        stamp_ns = stamped["timestamp_ns"]
        pose = transform_to_message(np.array(stamped["ego_to_global"]), WORLD, CAR, stamp_ns)
        yield stamp_ns, "/tf", TFMessage(transforms=[pose])
    for name, camera in frame["cameras"].items():
        stamp_ns, header = camera["timestamp_ns"], header_of(camera["timestamp_ns"], name)
        shape = camera["height"], camera["width"]
        yield (
            stamp_ns,
            f"/sensors/{name.lower()}/camera_info",
            camera_info(header, shape, np.array(camera["intrinsics"])),
        )
        image = jpeg_to_message((folder / camera["image"]).read_bytes(), header)
        yield stamp_ns, f"/sensors/{name.lower()}/image_color/compressed", image
    truth = truth_of(frame)
    yield truth.stamp_ns, TRUTH.boxes, detections_to_message(truth, TRUTH_FRAME)
