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


def drive(buffer, x, tenths, children=("base_link",)):
    """Odometry of one pass, the car standing at x."""
    for tenth in tenths:
        for child in children:
            stamp_ns = 5 * SECOND_NS + tenth * SECOND_NS // 10
            buffer.set_transform(transform_to_message(translation(x), "odom", child, stamp_ns), "test")


def x_of(buffer, tenth, child="base_link"):
    found = buffer.lookup_transform("odom", child, Time(nanoseconds=5 * SECOND_NS + tenth * SECOND_NS // 10))
    return found.transform.translation.x


@pytest.fixture
def looping():
    """A buffer that has been asked for the car's pose."""
    buffer = LoopingBuffer(Duration(seconds=30))
    drive(buffer, 0.0, range(21))
    assert x_of(buffer, 10) == 0.0
    return buffer


def test_a_bag_that_starts_again_makes_the_buffer_forget(looping):
    drive(looping, 100.0, [0])  # the second pass is elsewhere
    assert not looping.can_transform("odom", "base_link", Time(nanoseconds=6 * SECOND_NS))
    drive(looping, 100.0, range(1, 21))
    assert [x_of(looping, tenth) for tenth in (0, 10, 20)] == [100.0] * 3


def test_a_loop_in_which_frames_arrive_skewed_loses_nothing_of_the_new_pass(looping):
    drive(looping, 0.0, range(21), ["base_link", "mast"])
    assert x_of(looping, 10, "mast") == 0.0
    drive(looping, 100.0, range(6))
    drive(looping, 0.0, [21], ["mast"])  # a straggler of the pass before
    drive(looping, 100.0, range(6), ["mast"])
    drive(looping, 100.0, range(6, 21), ["base_link", "mast"])
    for child in ("base_link", "mast"):
        assert [x_of(looping, tenth, child) for tenth in (0, 3, 10, 20)] == [100.0] * 4


def test_frames_that_nobody_asked_for_may_stamp_as_they_like(looping):
    for tenth in range(0, 40, 2):
        drive(looping, 7.0, [21 - tenth % 20], ["arm"])
    assert [x_of(looping, tenth) for tenth in (0, 10, 20)] == [0.0] * 3


def test_slight_disorder_is_no_restart(looping):
    drive(looping, 0.0, [18, 21])
    assert x_of(looping, 0) == 0.0


def test_memory_is_bounded_by_the_cache(looping):
    drive(looping, 0.0, range(21, 1000))
    assert len(looping._kept["base_link"]) <= 301


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


def test_what_a_person_needs_to_mend_it():
    world = World()
    motion = EgoMotion(world.buffer, RIG)
    with pytest.raises(TransformException) as caught:
        motion.world_from_bev(SECOND_NS)
    text = motion.explain(caught.value)
    assert "no frame 'base_link' (base_frame of the rig) and no frame 'odom' (fixed_frame of the rig)" in text
    assert text.endswith("only nothing")
    world.move(0, np.eye(4))
    world.mount("cam_back", np.eye(4))
    with pytest.raises(TransformException) as caught:
        motion.camera_from_bev(StampedFrame("cam_bak", 0), 0)
    text = motion.explain(caught.value, "cam_bak")
    assert text == (
        "tf has no frame 'cam_bak' (frame_id of the images), only base_link, cam_back, odom; did you mean cam_back?"
    )
    with pytest.raises(TransformException) as caught:
        motion.camera_from_bev(StampedFrame("cam_back", SECOND_NS), SECOND_NS)
    assert "transform_timeout_ms" in motion.explain(caught.value, "cam_back")
