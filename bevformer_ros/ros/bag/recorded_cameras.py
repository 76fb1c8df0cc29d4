"""The cameras of a real car, for the simulated one: their CameraInfo and tf in a bag."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bevformer_ros.config import CameraConfig, RigConfig
from bevformer_ros.ros.bag.files import BagReader, deserialize
from bevformer_ros.ros.bag.scene import transforms_of
from bevformer_ros.ros.calibration import camera_model
from bevformer_ros.ros.conversions import stamp_to_ns
from bevformer_ros.ros.image_decoding import image_size
from bevformer_ros.ros.transform_tree import TransformTree
from bevformer_ros.simulation.rig import SimulatedCamera
from bevformer_ros.types import MILLISECOND_NS


def recorded_cameras(path: Path, rig: RigConfig) -> tuple[SimulatedCamera, ...]:
    """The rig's cameras with the sizes, lenses and mountings that a bag's first images, CameraInfo and tf have.

    Raises ValueError for a bag that lacks a camera's image or CameraInfo, and for a CameraInfo that no camera has;
    NoTransformError where tf does not lead to a camera.
    """
    with BagReader(path) as bag:
        transforms = transforms_of(bag)
        return tuple(_recorded(bag, transforms, camera, rig.base_frame) for camera in rig.cameras)


def _recorded(bag: BagReader, transforms: TransformTree, camera: CameraConfig, base_frame: str) -> SimulatedCamera:
    image, info = (_first(bag, topic) for topic in (camera.image_topic, camera.camera_info_topic))
    width, height = image_size(image)
    intrinsics, lens = camera_model(info, (width, height), camera.rectified)
    return SimulatedCamera(
        camera.name,
        width,
        height,
        intrinsics,
        transforms.look_up(base_frame, image.header.frame_id, stamp_to_ns(image.header.stamp)),
        round(camera.exposure_offset_ms * MILLISECOND_NS),
        lens,
        camera.field_of_view_deg,
    )


def _first(bag: BagReader, topic: str) -> Any:
    entry = next(bag.messages([topic]), None) if topic in bag.topics else None
    if entry is None:
        raise ValueError(f"{bag.path} has no message on {topic}")
    return deserialize(entry)
