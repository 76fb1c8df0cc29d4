"""What the benchmarks feed to a detector: frames of the simulated car's rig; the pictures cost what photos cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from bevformer_ros import geometry
from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.inference.image_plan import ImagePlan, image_from_bev
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.resources import config_file
from bevformer_ros.simulation.rig import surround_rig
from bevformer_ros.types import SECOND_NS, CameraImage, SurroundFrame

MOST_CAMERAS = 8
JPEG_QUALITY = 80
_SPEED = 10.0  # m/s, straight ahead
_SPARE_CAMERAS_TURN = 0.5  # radians by which a seventh and eighth camera look away from the first and second


def frames(config: ModelConfig) -> Iterator[SurroundFrame]:
    """Without end: the same pictures all along a straight road, one interval of the model apart."""
    cameras = _cameras(config)
    interval = config.temporal.interval_s
    step = 0
    while True:
        stamp_ns = round(step * interval * SECOND_NS)
        taken = tuple(replace(camera, stamp_ns=stamp_ns) for camera in cameras)
        world_from_bev = geometry.transform((0.0, _SPEED * step * interval, 0.0), (0.0, 0.0, 0.0, 1.0))
        yield SurroundFrame(stamp_ns, taken, world_from_bev)
        step += 1


def projections(config: ModelConfig) -> NDArray[np.float64]:
    """image_from_bev (N, 4, 4) of these frames, to pixels of the network's input."""
    plan = ImagePlan.for_size(config.image, *config.image.source_size)
    matrices = [(plan.intrinsics(camera.intrinsics), camera.camera_from_bev) for camera in _cameras(config)]
    return np.stack([image_from_bev(*pair) for pair in matrices])


def jpegs(frame: SurroundFrame) -> list[NDArray[np.uint8]]:
    """The frame's images as files."""
    return [
        cv2.imencode(".jpg", camera.image, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))[1]
        for camera in frame.cameras
        if camera is not None
    ]


def _cameras(config: ModelConfig) -> tuple[CameraImage, ...]:
    if len(config.cameras) > MOST_CAMERAS:
        raise ValueError(f"{config.name} has {len(config.cameras)} cameras, the benchmark at most {MOST_CAMERAS}")
    width, height = config.image.source_size
    rig = surround_rig(width, height)
    bev_frame = load_yaml(RigConfig, config_file("rigs", "nuscenes")).bev_frame
    base_from_bev = geometry.transform_from_rpy(bev_frame.translation, bev_frame.roll_pitch_yaw)
    cameras = []
    for index, name in enumerate(config.cameras):
        camera = rig[index % len(rig)]
        turn = geometry.transform_from_rpy((0.0, 0.0, 0.0), (0.0, 0.0, _SPARE_CAMERAS_TURN * (index // len(rig))))
        camera_from_bev = geometry.invert(turn @ camera.base_from_camera) @ base_from_bev
        cameras.append(CameraImage(name, 0, picture(width, height, index), camera.intrinsics, camera_from_bev))
    return tuple(cameras)


def picture(width: int, height: int, seed: int) -> NDArray[np.uint8]:
    """Soft blots, as many that a JPEG takes about a bit a pixel, like that of a street."""
    blots = np.random.default_rng(seed).integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(blots, (width, height)), np.uint8)
