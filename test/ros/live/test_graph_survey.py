"""make-rig on a running graph: what a drive that is being played shows gives back the rig that wrote it."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source .venv/bin/ros-activate")

from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.resources import DEFAULT_RIG, config_file
from bevformer_ros.ros.bag.simulated_drive import simulate
from bevformer_ros.simulation.drive import Drive

COMMAND = [sys.executable, "-m", "bevformer_ros"]

pytestmark = pytest.mark.integration


def test_nobody_publishes(tmp_path, start_process):
    listening = start_process([*COMMAND, "make-rig", "--live", "--seconds", "0.5", "-o", tmp_path / "rig.yaml"])
    assert listening.wait() == 1
    assert "found no camera to make a rig of: no images at all" in listening.output


def test_a_played_drive(tmp_path, start_process):
    shipped = load_yaml(RigConfig, config_file("rigs", DEFAULT_RIG))
    simulate(tmp_path / "drive", shipped, Drive(seed=9000, seconds=4.0, rate=2.0, size=(160, 90)))
    playing = start_process([*COMMAND, "play", tmp_path / "drive", "--loop", "--wait-for"])
    playing.wait_for_output("playing")
    listening = start_process([*COMMAND, "make-rig", "--live", "--seconds", "4", "-o", tmp_path / "rig.yaml"])
    assert listening.wait() == 0, listening.output
    rig = load_yaml(RigConfig, tmp_path / "rig.yaml")
    assert rig.model_cameras == {name.lower(): name for name in shipped.model_cameras}
    assert [camera.image_topic for camera in rig.cameras] == [camera.image_topic for camera in shipped.cameras]
    assert [camera.exposure_offset_ms for camera in rig.cameras] == [
        camera.exposure_offset_ms for camera in shipped.cameras
    ]
    assert (rig.base_frame, rig.fixed_frame) == (shipped.base_frame, shipped.fixed_frame)
