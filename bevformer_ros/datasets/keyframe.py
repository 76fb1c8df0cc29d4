"""One recorded surround keyframe in a folder: its frame.json, images and annotated objects.

frame.json holds, as row-major 4x4 matrices with the source named first: timestamp_ns and ego_to_global of the
lidar sweep, lidar_to_ego, per camera its image file, width, height, timestamp_ns, intrinsics, camera_to_ego and
ego_to_global at its own time, and objects (class, center, size_lwh, yaw, velocity, valid) in the lidar frame.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bevformer_ros import geometry
from bevformer_ros.taxonomy import ATTRIBUTE_ID, CLASS_ID, NO_ATTRIBUTE
from bevformer_ros.types import CameraImage, Detections3D, SurroundFrame

_REQUIRED = ("timestamp_ns", "ego_to_global", "lidar_to_ego", "cameras", "objects")


def load_keyframe(folder: Path) -> dict[str, Any]:
    """The content of frame.json. Raises ValueError where it is absent or lacks what a bag needs."""
    file = folder / "frame.json"
    if not file.is_file():
        raise ValueError(f"{folder} holds no frame.json, expected a keyframe as bevformer_ros/keyframe.py describes it")
    frame = json.loads(file.read_text(encoding="utf-8"))
    missing = [key for key in _REQUIRED if key not in frame]
    if missing:
        raise ValueError(f"{file} lacks {', '.join(missing)}")
    return frame


def keyframe_truth(frame: dict[str, Any]) -> Detections3D:
    """The annotated objects of the ten classes, in the lidar frame at its stamp; a velocity that is not known is 0."""
    objects = [entry for entry in frame["objects"] if entry["class"] in CLASS_ID and entry.get("valid", True)]
    count = len(objects)
    attributes = [ATTRIBUTE_ID.get(entry.get("attribute", ""), NO_ATTRIBUTE) for entry in objects]
    velocities = np.array([entry["velocity"] for entry in objects], np.float64).reshape(count, 2)
    return Detections3D(
        frame["timestamp_ns"],
        centers=np.array([entry["center"] for entry in objects], np.float64).reshape(count, 3),
        sizes=np.array([entry["size_lwh"] for entry in objects], np.float64).reshape(count, 3),
        yaws=np.array([entry["yaw"] for entry in objects], np.float64),
        velocities=np.nan_to_num(velocities),
        scores=np.ones(count),
        labels=np.array([CLASS_ID[entry["class"]] for entry in objects], np.int64),
        attributes=np.array(attributes, np.int64),
        from_proposal=np.zeros(count, np.bool_),
    )


def keyframe_surround_frame(folder: Path) -> SurroundFrame:
    """The keyframe as the pipeline takes it, the lidar frame being the BEV frame, at the lidar's stamp."""
    frame = load_keyframe(folder)
    world_from_bev = np.array(frame["ego_to_global"]) @ np.array(frame["lidar_to_ego"])
    cameras = []
    for name, camera in frame["cameras"].items():
        image = cv2.imread(str(folder / camera["image"]), cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError(f"{folder / camera['image']} is no readable image")
        world_from_camera = np.array(camera["ego_to_global"]) @ np.array(camera["camera_to_ego"])
        camera_from_bev = geometry.invert(world_from_camera) @ world_from_bev
        intrinsics = np.array(camera["intrinsics"])
        pixels = np.asarray(image, np.uint8)
        cameras.append(CameraImage(name, camera["timestamp_ns"], pixels, intrinsics, camera_from_bev))
    return SurroundFrame(frame["timestamp_ns"], tuple(cameras), world_from_bev, scene=folder.name)
