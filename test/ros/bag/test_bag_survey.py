"""What make-rig finds in bags: the rig that they were written with, and a car that nobody described."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 and rosbags: source .venv/bin/ros-activate")

import six_camera_rig_b

from bevformer_ros.commands.cli import main
from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.resources import DEFAULT_RIG, config_file
from bevformer_ros.ros.bag.files import BagReader, BagWriter, deserialize
from bevformer_ros.ros.bag.simulated_drive import simulate
from bevformer_ros.simulation.drive import Drive


def made(bag, folder, *options):
    assert main(["make-rig", str(bag), "-o", str(folder / "rig.yaml"), *options]) == 0
    return load_yaml(RigConfig, folder / "rig.yaml")


def test_an_empty_bag(tmp_path, capsys):
    with BagWriter(tmp_path / "bag"):
        pass
    assert main(["make-rig", str(tmp_path / "bag"), "-o", str(tmp_path / "rig.yaml")]) == 1
    assert "found no camera to make a rig of: no images at all" in capsys.readouterr().err
    assert not (tmp_path / "rig.yaml").exists()


def test_a_simulated_drive_gives_back_the_rig_that_wrote_it(tmp_path):
    shipped = load_yaml(RigConfig, config_file("rigs", DEFAULT_RIG))
    simulate(tmp_path / "drive", shipped, Drive(seed=9000, seconds=0.3, rate=10.0, size=(160, 90)))
    rig = made(tmp_path / "drive", tmp_path)
    assert rig.model_cameras == {name.lower(): name for name in shipped.model_cameras}
    found = [replace(camera, name=camera.name.upper(), model_camera=None) for camera in rig.cameras]
    assert found == list(shipped.cameras)
    assert (rig.base_frame, rig.fixed_frame) == (shipped.base_frame, shipped.fixed_frame)
    assert rig.reference_camera == shipped.reference_camera.lower()
    np.testing.assert_allclose(rig.bev_frame.translation, (0.94, 0.0, 1.84), atol=0.01)


def test_bad_messages_spoil_no_bag(tmp_path, capsys, caplog):
    """Before the good ones: an image cut short, a calibration of zeros, a pose without a rotation, and bytes that are
    no message of their topic."""
    rig = load_yaml(RigConfig, config_file("rigs", DEFAULT_RIG))
    simulate(tmp_path / "drive", rig, Drive(seed=9000, seconds=0.3, rate=10.0, size=(160, 90)))
    with BagReader(tmp_path / "drive") as bag, BagWriter(tmp_path / "spoilt") as spoilt:
        messages = list(bag.messages())
        for topic in ("/cam_front/image_raw/compressed", "/cam_back/camera_info", "/tf"):
            message = next(message for message in messages if message.topic == topic)
            content = deserialize(message)
            if topic == "/tf":
                content.transforms[0].transform.rotation.w = content.transforms[0].transform.rotation.z = 0.0
            elif hasattr(content, "k"):
                content.k = np.zeros(9)
            else:
                content.data = content.data[:100]
            spoilt.write(topic, content, messages[0].stamp_ns)
            spoilt.write_raw(topic, message.type_name, message.data[:7], messages[0].stamp_ns)
        for message in messages:
            spoilt.write_raw(message.topic, message.type_name, message.data, message.stamp_ns)
    assert len(made(tmp_path / "spoilt", tmp_path).cameras) == 6
    told = capsys.readouterr().out
    assert "left out: /cam_front/image_raw/compressed: messages that could not be used: 1 (JPEG of 100" in told
    assert "left out: /cam_back/camera_info: messages that could not be used: 1 (its K is zero" in told
    assert "a message on /tf at 0.0 s, and any like it, is left out" in caplog.text


def test_another_car(shared_directory, tmp_path, capsys):
    six_camera_rig_b.write_bag(shared_directory / "data" / "six_camera_rig_b", tmp_path / "drive")
    rig = made(tmp_path / "drive", tmp_path)
    assert rig.model_cameras == {
        "camera_01": "CAM_FRONT",
        "camera_06": "CAM_FRONT_RIGHT",
        "camera_05": "CAM_FRONT_LEFT",
        "camera_09": "CAM_BACK",
        "camera_07": "CAM_BACK_LEFT",
        "camera_08": "CAM_BACK_RIGHT",
    }
    assert (rig.reference_camera, rig.base_frame, rig.fixed_frame) == ("camera_01", "vehicle", "local")
    assert all(camera.compressed and camera.crop is not None for camera in rig.cameras)
    assert "field of view 48°" in capsys.readouterr().out  # the narrow one


def test_a_rig_that_is_there_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "rig.yaml").write_text("mine")
    assert main(["make-rig", str(tmp_path), "-o", str(tmp_path / "rig.yaml")]) == 1
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "rig.yaml").read_text() == "mine"
