"""A bag seen at one moment equals what was simulated; the draw command makes a picture of it."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 and rosbags: source .venv/bin/ros-activate")

from std_msgs.msg import String

from bevformer_ros.commands.cli import main
from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.resources import config_file
from bevformer_ros.ros.bag.files import BagReader, BagWriter
from bevformer_ros.ros.bag.scene import BagScene
from bevformer_ros.ros.bag.simulated_drive import simulate
from bevformer_ros.ros.topics import TRUTH
from bevformer_ros.simulation.drive import Drive
from bevformer_ros.simulation.observe import observe
from bevformer_ros.simulation.rig import BASE_FROM_LIDAR, surround_rig
from bevformer_ros.simulation.world import World

DRIVE = Drive(seed=4, seconds=1.0, rate=2.0, size=(160, 90))


@pytest.fixture(scope="module")
def rig():
    return load_yaml(RigConfig, config_file("rigs", "nuscenes"))


@pytest.fixture(scope="module")
def bag_path(rig, tmp_path_factory):
    path = tmp_path_factory.mktemp("bags") / "bag"
    simulate(path, rig, DRIVE)
    return path


def test_a_bag_without_cameras_is_refused(rig, tmp_path):
    with BagWriter(tmp_path / "bag") as bag:
        bag.write("/words", String(), 1)
    with BagReader(tmp_path / "bag") as bag, pytest.raises(ValueError, match=r"has no /tf, .*; it has /words"):
        BagScene(bag, rig)


def test_frame_and_boxes_are_those_simulated(rig, bag_path):
    stamp = DRIVE.reference_stamps[1]
    expected = observe(World.make(4, 2.0), surround_rig(*DRIVE.size), BASE_FROM_LIDAR, stamp)
    with BagReader(bag_path) as bag:
        scene = BagScene(bag, rig)
        assert scene.stamps(TRUTH.boxes) == DRIVE.reference_stamps
        frame, boxes = scene.frame(stamp), scene.boxes(TRUTH, stamp)
        with pytest.raises(ValueError, match="no boxes of stamp 1 on /ground_truth/detections"):
            scene.boxes(TRUTH, 1)
    np.testing.assert_allclose(boxes.centers, expected.truth.centers, atol=1e-9)
    np.testing.assert_allclose(boxes.velocities, expected.truth.velocities, atol=1e-9)
    for found, wanted in zip(frame.cameras, expected.frame.cameras, strict=True):
        assert (found.name, found.stamp_ns) == (wanted.name, wanted.stamp_ns)
        np.testing.assert_array_equal(found.image, wanted.image)
        np.testing.assert_allclose(found.camera_from_bev, wanted.camera_from_bev, atol=2e-3)


def test_an_image_beyond_the_tolerance_belongs_to_no_set(rig, bag_path):
    front, *others = rig.cameras
    shifted = replace(rig, cameras=(front, *(replace(camera, exposure_offset_ms=100.0) for camera in others)))
    with BagReader(bag_path) as bag:
        cameras = BagScene(bag, shifted).frame(DRIVE.reference_stamps[1]).cameras
    assert [camera is not None for camera in cameras] == [True, False, False, False, False, False]


def test_draw_takes_bags_and_keyframes(bag_path, shared_directory, tmp_path, capsys):
    keyframe = str(shared_directory / "data" / "nuscenes_frame")
    assert main(["draw", str(bag_path), "--rig", "nuscenes", "-o", str(tmp_path / "bag.png"), "--width", "200"]) == 0
    assert main(["draw", keyframe, "-o", str(tmp_path / "keyframe.png"), "--width", "200"]) == 0
    bare = ["draw", str(bag_path), "--rig", "nuscenes", "--boxes", "/nowhere", "-o", str(tmp_path / "bare.png")]
    assert main(bare) == 0
    assert "0 boxes in" in capsys.readouterr().out
    for name in ("bag.png", "keyframe.png", "bare.png"):
        assert cv2.imread(str(tmp_path / name)).std() > 20
    assert main(["draw", str(tmp_path), "-o", str(tmp_path / "none.png")]) == 1
    assert "is no bag" in capsys.readouterr().err
