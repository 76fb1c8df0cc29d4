"""The programs of examples/ run as they stand, on the shipped weights."""

from __future__ import annotations

import runpy

import pytest
from miniature_nuscenes import SPLIT, VERSION
from support import REPOSITORY

NEEDS_A_NODE = {"consumer"}  # listens to a running detector
EXAMPLES = {path.stem: path for path in sorted((REPOSITORY / "examples").glob("*.py"))}


@pytest.fixture
def output_of(monkeypatch, capsys):
    """What a program prints, started with words in the repository."""

    def run(name, *words):
        monkeypatch.chdir(REPOSITORY)
        monkeypatch.setattr("sys.argv", [str(EXAMPLES[name]), *map(str, words)])
        runpy.run_path(str(EXAMPLES[name]), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_arrays(output_of):
    assert "m ahead" in output_of("from_arrays")


def test_tracks(output_of):
    lines = output_of("track").splitlines()
    assert len(lines) == 7 and "objects, the longest seen in" in lines[-1]


@pytest.mark.slow
def test_fine_tuning(tmp_path, output_of):
    assert "detects like any other: demo" in output_of("fine_tune", tmp_path / "run")


def test_nuscenes(tmp_path, output_of):
    pytest.importorskip("nuscenes", reason="needs nuscenes-devkit, which `make env` installs")
    from miniature_nuscenes import write_miniature

    write_miniature(tmp_path)
    assert " missed (thick white)" in output_of("from_nuscenes", tmp_path, VERSION, SPLIT)


def test_bag(tmp_path, output_of):
    pytest.importorskip("vision_msgs.msg", reason="needs the ROS environment that `make test` makes")
    from bevformer_ros.config import RigConfig, load_yaml
    from bevformer_ros.resources import DEFAULT_RIG, config_file
    from bevformer_ros.ros.bag.simulated_drive import simulate
    from bevformer_ros.simulation.drive import Drive

    rig = load_yaml(RigConfig, config_file("rigs", DEFAULT_RIG))
    simulate(tmp_path / "drive", rig, Drive(seed=9001, seconds=2.0, rate=2.0, size=(400, 225)))
    assert "boxes" in output_of("from_bag", tmp_path / "drive")


def test_none_is_forgotten():
    texts = [path.read_text(encoding="utf-8") for path in (REPOSITORY / "test").rglob("test_*.py")]
    names = [
        name
        for name in EXAMPLES.keys() - NEEDS_A_NODE
        if not any(f'"{name}"' in text or f"{name}.py" in text for text in texts)
    ]
    assert names == []
