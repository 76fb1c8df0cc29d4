"""Three recorded frames of a car that nuScenes never saw, through the node, with the rig that make-rig wrote for it."""

from __future__ import annotations

import sys

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source .venv/bin/ros-activate")

import six_camera_rig_b
from rig_publisher import DetectorListener
from support import detector_command
from tf2_ros import Buffer

from bevformer_ros import geometry
from bevformer_ros.commands.cli import main
from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.datasets.keyframe import load_keyframe
from bevformer_ros.ros.bag.files import BagReader, deserialize
from bevformer_ros.ros.conversions import stamp_to_ns
from bevformer_ros.ros.ego_motion import EgoMotion
from bevformer_ros.ros.node.frame_assembly import FrameAssembler, SynchronizedSet
from bevformer_ros.ros.node.patience import Patience
from bevformer_ros.ros.node.tf_buffer import TfTransforms

SIZE = np.array([1936, 1216])


@pytest.fixture
def data(shared_directory):
    return shared_directory / "data" / "six_camera_rig_b"


@pytest.fixture
def drive(data, tmp_path):
    """The bag; beside it rig.yaml."""
    six_camera_rig_b.write_bag(data, tmp_path / "drive")
    assert main(["make-rig", str(tmp_path / "drive"), "-o", str(tmp_path / "rig.yaml")]) == 0
    return tmp_path / "drive"


def test_true_boxes_land_where_the_recording_says(data, drive):
    """Through all that the node does before the network: within a pixel in every camera. The recording has a pose of
    its own for every camera at one stamp; tf, which has one for all, is up to 4 mm off."""
    rig = load_yaml(RigConfig, drive.parent / "rig.yaml")
    buffer, infos, images = Buffer(), {}, {}
    with BagReader(drive) as bag:
        for entry in bag.messages():
            message = deserialize(entry)
            for transform in getattr(message, "transforms", []):
                add = buffer.set_transform_static if entry.topic == "/tf_static" else buffer.set_transform
                add(transform, "bag")
            if entry.topic.endswith("camera_info"):
                infos[entry.topic] = message
            elif entry.topic.endswith("compressed"):
                images.setdefault(stamp_to_ns(message.header.stamp), {})[entry.topic] = message
    transforms = TfTransforms(buffer)
    assembler = FrameAssembler(rig.cameras, 6, 8.0, EgoMotion(transforms, rig), Patience(0, lambda: 0))
    for index, config in enumerate(rig.cameras):
        assembler.set_camera_info(index, infos[config.camera_info_topic])
    assert len(images) == len(six_camera_rig_b.FRAMES)
    for name, (stamp_ns, messages) in zip(six_camera_rig_b.FRAMES, sorted(images.items()), strict=True):
        taken = SynchronizedSet(stamp_ns, tuple(messages[camera.image_topic] for camera in rig.cameras))
        frame = assembler.assemble(taken).frame
        recorded = load_keyframe(data / name)
        world_from_truth = transforms.look_up(rig.fixed_frame, six_camera_rig_b.TRUTH_FRAME, recorded["timestamp_ns"])
        corners = six_camera_rig_b.truth_of(recorded).corners()
        corners_bev = geometry.apply(geometry.invert(frame.world_from_bev) @ world_from_truth, corners)
        for config, camera in zip(rig.cameras, frame.cameras, strict=True):
            true = recorded["cameras"][camera.name.upper()]
            expected, depths = geometry.project(true["intrinsics"], geometry.apply(true["lidar_to_camera"], corners))
            pixels, _ = geometry.project(camera.intrinsics, geometry.apply(camera.camera_from_bev, corners_bev))
            in_view = (depths > 0.5) & (expected > 0).all(axis=-1) & (expected < SIZE).all(axis=-1)
            assert camera.image.shape == (1089, 1936, 3)
            if in_view.any():
                error = np.abs(pixels + config.crop[:2] - expected)[in_view].max()
                print(f"{name} {camera.name}: {error:.2f} px at most, {in_view.sum()} corners")
                assert error < 1.0
    assembler.close()


@pytest.mark.integration
def test_the_node_detects_with_all_six(drive, start_process):
    node = start_process(detector_command(rig=drive.parent / "rig.yaml"), OMP_NUM_THREADS="1")
    with DetectorListener(["detections", "status"]) as listener:
        listener.wait_for_outputs()
        node.wait_for_output("detecting with smallest")
        start_process([sys.executable, "-m", "bevformer_ros", "play", drive, "--rate", "0.1"])
        detections = listener.wait_for("detections", len(six_camera_rig_b.FRAMES))
        statuses = [status for status in listener.received["status"] if status.sets_processed]
    assert {message.header.frame_id for message in detections} == {six_camera_rig_b.CAR}
    assert set(statuses[-1].cameras_used) == {f"camera_{number:02}" for number in (1, 5, 6, 7, 8, 9)}
    assert "camera_01 heading +4°, pitch -1°, field of view 48°" in node.output
    assert "looks" not in node.output  # the checks of the mounting find nothing
