"""A drive and its results as a recording for rerun's viewer."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("vision_msgs.msg", reason="needs the ROS environment that `make test` makes")

from support import SMALLEST

from bevformer_ros.commands.cli import main
from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.resources import DEFAULT_RIG, config_file
from bevformer_ros.ros.bag.simulated_drive import simulate
from bevformer_ros.simulation.drive import Drive

RIG = load_yaml(RigConfig, config_file("rigs", DEFAULT_RIG))


def test_a_drive_becomes_a_recording(tmp_path, capsys):
    reading = pytest.importorskip("rerun.chunk", reason="needs rerun-sdk, which the viewer alone needs")
    simulate(tmp_path / "drive", RIG, Drive(seed=1, seconds=1.0, rate=2.0, size=(160, 90)))
    assert main(["view", str(tmp_path / "drive"), "--save", str(tmp_path / "drive.rrd")]) == 0
    assert "2 sets in" in capsys.readouterr().out
    paths = {chunk.entity_path for chunk in reading.RrdReader(tmp_path / "drive.rrd").stream()}
    assert {"/world/path", "/world/ego", "/world/ego/truth/boxes", "/world/ego/CAM_BACK/image"} <= paths


def test_bev_features_of_a_model_are_shown_too(tmp_path):
    reading = pytest.importorskip("rerun.chunk", reason="needs rerun-sdk, which the viewer alone needs")
    simulate(tmp_path / "drive", RIG, Drive(seed=1, seconds=0.5, rate=2.0, size=(160, 90)))
    words = ["--features", str(SMALLEST), "--save", str(tmp_path / "drive.rrd")]
    assert main(["view", str(tmp_path / "drive"), *words]) == 0
    assert "/bev_features" in {chunk.entity_path for chunk in reading.RrdReader(tmp_path / "drive.rrd").stream()}


def test_what_is_missing_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    monkeypatch.delitem(sys.modules, "bevformer_ros.ros.bag.viewer", raising=False)
    assert main(["view", str(tmp_path / "drive")]) == 1
    assert "pip install rerun-sdk" in capsys.readouterr().err
