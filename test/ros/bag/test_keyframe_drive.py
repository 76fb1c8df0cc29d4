"""The keyframe as a bag: untouched images, true stamps, and poses from which tf gives back frame.json's geometry."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 and rosbags: source .venv/bin/ros-activate")


from bevformer_ros import geometry
from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.datasets.keyframe import keyframe_truth, load_keyframe
from bevformer_ros.resources import DEFAULT_RIG, config_file
from bevformer_ros.ros.bag.files import BagReader, deserialize
from bevformer_ros.ros.bag.keyframe_drive import keyframe_to_bag
from bevformer_ros.ros.conversions import detections_from_messages, stamp_to_ns
from bevformer_ros.ros.ego_motion import EgoMotion, StampedFrame
from bevformer_ros.ros.topics import LIDAR_FRAME, TRUTH
from bevformer_ros.ros.transform_tree import TransformTree


@pytest.fixture(scope="module")
def rig():
    return load_yaml(RigConfig, config_file("rigs", DEFAULT_RIG))


@pytest.fixture
def folder(shared_directory):
    return shared_directory / "data" / "nuscenes_frame"


@pytest.fixture
def messages(folder, rig, tmp_path):
    keyframe_to_bag(folder, tmp_path / "bag", rig)
    with BagReader(tmp_path / "bag") as bag:
        return [(entry, deserialize(entry)) for entry in bag.messages()]


def test_a_folder_without_keyframe_is_refused(rig, tmp_path):
    with pytest.raises(ValueError, match=r"holds no frame\.json"):
        keyframe_to_bag(tmp_path, tmp_path / "bag", rig)


def test_images_are_untouched_and_carry_their_true_stamps(folder, rig, messages):
    frame = load_keyframe(folder)
    by_topic = {entry.topic: (entry, message) for entry, message in messages}
    for config in rig.cameras:
        camera = frame["cameras"][config.name]
        entry, image = by_topic[config.image_topic]
        assert bytes(image.data) == (folder / camera["image"]).read_bytes()
        assert stamp_to_ns(image.header.stamp) == entry.stamp_ns == camera["timestamp_ns"]
        _, info = by_topic[config.camera_info_topic]
        assert (info.header, info.width, info.height) == (image.header, 1600, 900)
        np.testing.assert_array_equal(np.reshape(info.k, (3, 3)), camera["intrinsics"])


def test_truth_comes_back(folder, messages):
    by_topic = {entry.topic: message for entry, message in messages}
    assert by_topic[TRUTH.boxes].header.frame_id == LIDAR_FRAME
    truth = keyframe_truth(load_keyframe(folder))
    read = detections_from_messages(by_topic[TRUTH.boxes], by_topic[TRUTH.kinematics])
    np.testing.assert_allclose(read.centers, truth.centers)
    np.testing.assert_allclose(read.sizes, truth.sizes)
    np.testing.assert_allclose(geometry.wrap_angle(read.yaws - truth.yaws), 0.0, atol=1e-9)
    np.testing.assert_allclose(read.velocities, truth.velocities)
    np.testing.assert_array_equal(read.labels, truth.labels)


def test_tf_gives_back_the_recorded_projections(folder, rig, messages):
    """camera_from_bev as the node looks it up, against frame.json's lidar_to_camera: within half a pixel."""
    transforms = TransformTree()
    for entry, message in messages:
        for transform in getattr(message, "transforms", []):
            (transforms.add_static if entry.topic == "/tf_static" else transforms.add)(transform)
    frame = load_keyframe(folder)
    cameras = [StampedFrame(camera.name, frame["cameras"][camera.name]["timestamp_ns"]) for camera in rig.cameras]
    poses = EgoMotion(transforms, rig).poses(frame["timestamp_ns"], cameras)
    corners = keyframe_truth(frame).corners()
    for config, camera_from_bev in zip(rig.cameras, poses.camera_from_bev, strict=True):
        camera = frame["cameras"][config.name]
        ours, _ = geometry.project(camera["intrinsics"], geometry.apply(camera_from_bev, corners))
        theirs, depth = geometry.project(camera["intrinsics"], geometry.apply(camera["lidar_to_camera"], corners))
        visible = (depth > 1.0) & (np.abs(theirs - (800, 450)) < (800, 450)).all(axis=-1)
        assert visible.any()
        assert np.abs(ours - theirs)[visible].max() < 0.05
