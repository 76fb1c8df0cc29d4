"""Two real drives: what the node looks up in tf against the data set's own matrices."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import groupby

import numpy as np
import pytest

pytest.importorskip("tf2_ros", reason="needs the ROS environment that `make test` makes")

from rclpy.duration import Duration

from bevformer_ros import geometry
from bevformer_ros.config import BevFrameConfig, RigConfig, load_yaml
from bevformer_ros.resources import config_file
from bevformer_ros.ros.conversions import transform_to_message
from bevformer_ros.ros.ego_motion import EgoMotion, StampedFrame
from bevformer_ros.ros.node.settings import Settings
from bevformer_ros.ros.node.tf_buffer import LoopingBuffer, TfTransforms
from bevformer_ros.ros.topics import LIDAR_FRAME
from bevformer_ros.ros.transform_tree import TransformTree
from bevformer_ros.types import SECOND_NS

# Thinks in the lidar's own frame, whose exact pose the data set tells.
RIG = replace(
    load_yaml(RigConfig, config_file("rigs", "nuscenes")),
    bev_frame=BevFrameConfig((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), parent=LIDAR_FRAME),
)
RELATIVE = 1e-6


class Buffered:
    """tf2's buffer as the node sets it up."""

    def __init__(self):
        self._buffer = LoopingBuffer(Duration(nanoseconds=round(Settings.transform_cache_s * SECOND_NS)))
        self.transforms = TfTransforms(self._buffer)

    def move(self, transform):
        self._buffer.set_transform(transform, "test")

    def mount(self, transform):
        self._buffer.set_transform_static(transform, "test")


class Recorded:
    """The replay's tree."""

    def __init__(self):
        self.transforms = TransformTree(round(Settings.transform_cache_s * SECOND_NS))
        self.move, self.mount = self.transforms.add, self.transforms.add_static


@pytest.fixture(scope="module")
def scenes(shared_directory):
    file = shared_directory / "data" / "nuscenes_mini_val_tables" / "mini_val_frames.json"
    if not file.is_file():
        pytest.skip(f"{file} is not there")
    frames = json.loads(file.read_text(encoding="utf-8"))["frames"]
    return {scene: list(group) for scene, group in groupby(frames, key=lambda frame: frame["scene"])}


def test_the_tables_are_whole(scenes):
    assert {scene: len(frames) for scene, frames in scenes.items()} == {"scene-0103": 40, "scene-0916": 41}
    assert {len(frame["cameras"]) for frames in scenes.values() for frame in frames} == {6}


@pytest.mark.parametrize("kind", [Buffered, Recorded])
def test_ego_motion_at_every_cameras_own_stamp(scenes, kind):
    """Keyframe after keyframe, as the car's transforms would come in."""
    for frames in scenes.values():
        tf = kind()
        mounts = {name: camera["camera_to_ego"] for name, camera in frames[0]["cameras"].items()}
        for name, base_from_sensor in {LIDAR_FRAME: frames[0]["lidar_to_ego"], **mounts}.items():
            tf.mount(transform_to_message(np.array(base_from_sensor), RIG.base_frame, name, 0))
        motion = EgoMotion(tf.transforms, RIG)
        for frame in frames:
            records = [frame, *frame["cameras"].values()]
            for record in sorted(records, key=lambda record: record["timestamp_ns"]):
                pose = np.array(record["ego_to_global"])
                tf.move(transform_to_message(pose, RIG.fixed_frame, RIG.base_frame, record["timestamp_ns"]))
            stamps = [StampedFrame(camera.name, _record(frame, camera)["timestamp_ns"]) for camera in RIG.cameras]
            poses = motion.poses(frame["timestamp_ns"], stamps)
            world_from_lidar = np.array(frame["ego_to_global"]) @ frame["lidar_to_ego"]
            assert _relative_error(poses.world_from_bev, world_from_lidar) < RELATIVE
            for camera, camera_from_bev in zip(RIG.cameras, poses.camera_from_bev, strict=True):
                record = _record(frame, camera)
                world_from_base = tf.transforms.look_up(RIG.fixed_frame, RIG.base_frame, record["timestamp_ns"])
                assert _relative_error(world_from_base, record["ego_to_global"]) < RELATIVE
                assert _relative_error(camera_from_bev, record["lidar_to_camera"]) < RELATIVE


def test_the_moving_car_matters(scenes):
    """Were all cameras taken to fire with the lidar, the error would be thousands of times the one allowed."""
    errors = []
    for frame in (frame for frames in scenes.values() for frame in frames):
        for record in frame["cameras"].values():
            still = geometry.invert(np.array(record["camera_to_ego"])) @ frame["lidar_to_ego"]
            errors.append(_relative_error(still, record["lidar_to_camera"]))
    assert max(errors) > 1000 * RELATIVE


def _record(frame, camera):
    return frame["cameras"][camera.name]


def _relative_error(found, expected):
    """Of the largest entry."""
    return np.abs(found - np.array(expected)).max() / np.abs(expected).max()
