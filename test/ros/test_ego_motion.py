from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("tf2_ros", reason="needs the ROS environment that `make test` makes")

from rclpy.duration import Duration
from rclpy.time import Time
from support import REPOSITORY
from tf2_ros import Buffer, ExtrapolationException, LookupException, TransformException

from bevformer_ros import geometry
from bevformer_ros.config import BevFrameConfig, RigConfig, load_yaml
from bevformer_ros.ros.conversions import transform_to_message
from bevformer_ros.ros.ego_motion import EgoMotion, LoopingBuffer, StampedFrame
from bevformer_ros.types import SECOND_NS

RIG = load_yaml(RigConfig, REPOSITORY / "config" / "rigs" / "nuscenes.yaml")


class World:
    """A tf buffer that a test fills."""

    def __init__(self):
        self.buffer = Buffer(cache_time=Duration(seconds=30))

    def move(self, stamp_ns, odom_from_base):
        self.buffer.set_transform(transform_to_message(odom_from_base, "odom", "base_link", stamp_ns), "test")

    def mount(self, name, base_from_sensor):
        self.buffer.set_transform_static(transform_to_message(base_from_sensor, "base_link", name, 0), "test")


def translation(x, y=0.0, z=0.0):
    return geometry.transform((x, y, z), (0, 0, 0, 1))


def test_a_car_that_stands_still():
    world = World()
    world.move(0, translation(5))
    world.move(2 * SECOND_NS, translation(5))
    base_from_camera = geometry.transform_from_rpy((1.7, 0, 1.5), (-np.pi / 2, 0, -np.pi / 2))
    world.mount("cam", base_from_camera)
    poses = EgoMotion(world.buffer, RIG).poses(SECOND_NS, [StampedFrame("cam", SECOND_NS), None])
    base_from_bev = geometry.transform_from_rpy(RIG.bev_frame.translation, RIG.bev_frame.roll_pitch_yaw)
    assert np.allclose(poses.camera_from_bev[0], geometry.invert(base_from_camera) @ base_from_bev)
    assert poses.camera_from_bev[1] is None
    assert np.allclose(poses.output_from_bev, base_from_bev)
    assert np.allclose(poses.world_from_bev, translation(5) @ base_from_bev)


def test_the_car_moves_between_reference_and_exposure():
    world = World()
    for second in range(3):
        world.move(second * SECOND_NS, translation(10 * second))
    world.mount("cam", np.eye(4))
    rig = replace(RIG, bev_frame=BevFrameConfig((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)))
    poses = EgoMotion(world.buffer, rig).poses(SECOND_NS, [StampedFrame("cam", SECOND_NS - SECOND_NS // 20)])
    # 50 ms earlier the car was 0.5 m further back, so the same point was 0.5 m further ahead.
    assert np.allclose(poses.camera_from_bev[0], translation(0.5))


def test_output_frame_and_parent_of_the_bev_frame():
    world = World()
    world.move(0, translation(5))
    world.move(2 * SECOND_NS, translation(5))
    world.mount("lidar", translation(0, 0, 2))
    rig = replace(RIG, bev_frame=BevFrameConfig((0.0, 0.0, 0.0), (0.0, 0.0, -np.pi / 2), parent="lidar"))
    poses = EgoMotion(world.buffer, rig, output_frame="odom").poses(SECOND_NS, [])
    assert np.allclose(poses.output_from_bev, poses.world_from_bev)
    # y forward in the BEV frame is x forward in the lidar's.
    assert np.allclose(geometry.apply(poses.world_from_bev, [0, 3, 0]), (8, 0, 2))


def test_a_bag_that_starts_again_makes_the_buffer_forget():
    buffer = LoopingBuffer(Duration(seconds=30))
    for pass_x in (0.0, 100.0):  # the second pass is elsewhere
        for tenth in range(21):
            for child in ("base_link", "trailer"):
                stamp_ns = 5 * SECOND_NS + tenth * SECOND_NS // 10
                buffer.set_transform(transform_to_message(translation(pass_x), "odom", child, stamp_ns), "test")
            if tenth == 0 and pass_x:
                assert not buffer.can_transform("odom", "base_link", Time(nanoseconds=6 * SECOND_NS))
    for child in ("base_link", "trailer"):
        for stamp_ns in (5 * SECOND_NS, 6 * SECOND_NS, 7 * SECOND_NS):
            found = buffer.lookup_transform("odom", child, Time(nanoseconds=stamp_ns))
            assert found.transform.translation.x == 100.0


def test_slight_disorder_is_no_restart():
    buffer = LoopingBuffer(Duration(seconds=30))
    for tenth in (0, 10, 8, 12):
        buffer.set_transform(
            transform_to_message(np.eye(4), "odom", "base_link", SECOND_NS + tenth * SECOND_NS // 10), "test"
        )
    assert buffer.can_transform("odom", "base_link", Time(nanoseconds=SECOND_NS))


def test_what_is_missing_is_named():
    world = World()
    motion = EgoMotion(world.buffer, RIG)
    with pytest.raises(TransformException):
        motion.poses(SECOND_NS, [])
    world.move(0, np.eye(4))
    world.move(SECOND_NS, np.eye(4))
    with pytest.raises(LookupException, match="cam"):
        motion.poses(SECOND_NS, [StampedFrame("cam", SECOND_NS)])
    world.mount("cam", np.eye(4))
    with pytest.raises(ExtrapolationException):
        motion.poses(SECOND_NS, [StampedFrame("cam", SECOND_NS + 1)])
