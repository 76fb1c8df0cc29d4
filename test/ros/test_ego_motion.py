from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("tf2_ros", reason="needs the ROS environment that `make test` makes")

from rclpy.duration import Duration
from support import REPOSITORY
from tf2_ros import Buffer

from bevformer_ros import geometry
from bevformer_ros.config import BevFrameConfig, RigConfig, load_yaml
from bevformer_ros.ros.conversions import transform_to_message
from bevformer_ros.ros.ego_motion import EgoMotion, StampedFrame
from bevformer_ros.ros.node.tf_buffer import TfTransforms
from bevformer_ros.ros.transform_tree import NoTransformError, TransformTree
from bevformer_ros.types import SECOND_NS

RIG = load_yaml(RigConfig, REPOSITORY / "config" / "rigs" / "nuscenes.yaml")


class BufferWorld:
    """A tf buffer that a test fills."""

    def __init__(self):
        self.buffer = Buffer(cache_time=Duration(seconds=30))
        self.transforms = TfTransforms(self.buffer)

    def move(self, stamp_ns, odom_from_base):
        self.buffer.set_transform(transform_to_message(odom_from_base, "odom", "base_link", stamp_ns), "test")

    def mount(self, name, base_from_sensor):
        self.buffer.set_transform_static(transform_to_message(base_from_sensor, "base_link", name, 0), "test")


class RecordedWorld:
    """The same for a recording."""

    def __init__(self):
        self.transforms = TransformTree()

    def move(self, stamp_ns, odom_from_base):
        self.transforms.add(transform_to_message(odom_from_base, "odom", "base_link", stamp_ns))

    def mount(self, name, base_from_sensor):
        self.transforms.add_static(transform_to_message(base_from_sensor, "base_link", name, 0))


@pytest.fixture(params=[BufferWorld, RecordedWorld])
def world(request):
    return request.param()


def translation(x, y=0.0, z=0.0):
    return geometry.transform((x, y, z), (0, 0, 0, 1))


def test_a_car_that_stands_still(world):
    world.move(0, translation(5))
    world.move(2 * SECOND_NS, translation(5))
    base_from_camera = geometry.transform_from_rpy((1.7, 0, 1.5), (-np.pi / 2, 0, -np.pi / 2))
    world.mount("cam", base_from_camera)
    poses = EgoMotion(world.transforms, RIG).poses(SECOND_NS, [StampedFrame("cam", SECOND_NS), None])
    base_from_bev = geometry.transform_from_rpy(RIG.bev_frame.translation, RIG.bev_frame.roll_pitch_yaw)
    assert np.allclose(poses.camera_from_bev[0], geometry.invert(base_from_camera) @ base_from_bev)
    assert poses.camera_from_bev[1] is None
    assert np.allclose(poses.output_from_bev, base_from_bev)
    assert np.allclose(poses.world_from_bev, translation(5) @ base_from_bev)


def test_the_car_moves_between_reference_and_exposure(world):
    for second in range(3):
        world.move(second * SECOND_NS, translation(10 * second))
    world.mount("cam", np.eye(4))
    rig = replace(RIG, bev_frame=BevFrameConfig((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)))
    poses = EgoMotion(world.transforms, rig).poses(SECOND_NS, [StampedFrame("cam", SECOND_NS - SECOND_NS // 20)])
    # 50 ms earlier the car was 0.5 m further back, so the same point was 0.5 m further ahead.
    assert np.allclose(poses.camera_from_bev[0], translation(0.5))


def test_output_frame_and_parent_of_the_bev_frame(world):
    world.move(0, translation(5))
    world.move(2 * SECOND_NS, translation(5))
    world.mount("lidar", translation(0, 0, 2))
    rig = replace(RIG, bev_frame=BevFrameConfig((0.0, 0.0, 0.0), (0.0, 0.0, -np.pi / 2), parent="lidar"))
    poses = EgoMotion(world.transforms, rig, output_frame="odom").poses(SECOND_NS, [])
    assert np.allclose(poses.output_from_bev, poses.world_from_bev)
    # y forward in the BEV frame is x forward in the lidar's.
    assert np.allclose(geometry.apply(poses.world_from_bev, [0, 3, 0]), (8, 0, 2))


def test_what_is_missing_is_named(world):
    motion = EgoMotion(world.transforms, RIG)
    with pytest.raises(NoTransformError):
        motion.poses(SECOND_NS, [])
    world.move(0, np.eye(4))
    world.move(SECOND_NS, np.eye(4))
    with pytest.raises(NoTransformError, match="cam"):
        motion.poses(SECOND_NS, [StampedFrame("cam", SECOND_NS)])
    world.mount("cam", np.eye(4))
    with pytest.raises(NoTransformError, match="extrapolat"):
        motion.poses(SECOND_NS, [StampedFrame("cam", SECOND_NS + 1)])


def test_what_a_person_needs_to_mend_it(world):
    motion = EgoMotion(world.transforms, RIG)
    with pytest.raises(NoTransformError) as caught:
        motion.world_from_bev(SECOND_NS)
    text = motion.explain(caught.value)
    assert "no frame 'base_link' (base_frame of the rig) and no frame 'odom' (fixed_frame of the rig)" in text
    assert text.endswith("only nothing")
    world.move(0, np.eye(4))
    world.mount("cam_back", np.eye(4))
    with pytest.raises(NoTransformError) as caught:
        motion.camera_from_bev(StampedFrame("cam_bak", 0), 0)
    text = motion.explain(caught.value, "cam_bak")
    assert text == (
        "tf has no frame 'cam_bak' (frame_id of the images), only base_link, cam_back, odom; did you mean cam_back?"
    )
    with pytest.raises(NoTransformError) as caught:
        motion.camera_from_bev(StampedFrame("cam_back", SECOND_NS), SECOND_NS)
    assert "transform_timeout_ms" in motion.explain(caught.value, "cam_back")
