"""The research commands where ROS cannot be imported: they run, and write what they write where it can."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from miniature_nuscenes import SCENES, write_miniature
from support import REPOSITORY, SMALLEST
from without_ros import blocker

pytest.importorskip("rosbags", reason="needs the rosbags library: pip install .[bags]")
pytest.importorskip("nuscenes", reason="needs nuscenes-devkit: pip install .[evaluation]")

from bevformer_ros.commands.cli import main
from bevformer_ros.ros.bag.files import BagMessage, BagReader
from bevformer_ros.ros.topics import OUTPUT_STATUS

KEYFRAME = REPOSITORY.parent / "shared" / "data" / "nuscenes_frame"
BAGS = ("drive", "out", "scene", "scene_out")


def commands(folder: Path, dataset: Path) -> list[list[str]]:
    small = ["--model", str(SMALLEST), "--device", "cpu", "--precision", "float32"]
    words: list[list[str | Path]] = [
        ["simulate", "-o", folder / "drive", "--seconds", "2", "--rate", "2", "--size", "160x90", "--noise", "2"],
        ["replay", folder / "drive", "-o", folder / "out", *small, "--score-threshold", "0"],
        ["evaluate", folder / "out", "--json", folder / "scores.json"],
        ["report", folder / "out", "-o", folder / "report"],
        ["draw", folder / "drive", "-o", folder / "drive.png"],
        ["make-rig", folder / "drive", "-o", folder / "rig.yaml"],
        ["check-rig", folder / "rig.yaml", folder / "drive", "-o", folder / "rig.png"],
        ["evaluate", "--world", "9000:9001", *small, "--seconds", "1", "--size", "160x90"],
        ["nuscenes-to-bag", dataset, "--scene", SCENES[0], "-o", folder / "scene"],
        ["replay", folder / "scene", "-o", folder / "scene_out", *small, "--score-threshold", "0"],
        ["submission", dataset, "--results", folder / "scene_out", "--scene", SCENES[0], "-o", folder / "results.json"],
    ]
    if KEYFRAME.is_dir():
        words += [["keyframe-to-bag", KEYFRAME, "-o", folder / "keyframe"]]
    return [[str(word) for word in command] for command in words]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_miniature(tmp_path_factory.mktemp("nuscenes") / "data")


@pytest.fixture(scope="module")
def without_ros(tmp_path_factory, dataset):
    """Where all commands wrote in one process without ROS."""
    folder = tmp_path_factory.mktemp("without_ros")
    script = (
        blocker()
        + f"""
from bevformer_ros.commands.cli import main
if __name__ == "__main__":
    for words in {commands(folder, dataset)!r}:
        assert main(words) == 0, words
    assert not [name for name in sys.modules if name.partition(".")[0] in ("rclpy", "tf2_ros", "std_msgs")]
"""
    )
    environment = {name: value for name, value in os.environ.items() if name != "AMENT_PREFIX_PATH"}
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return folder


def content(path: Path) -> list[BagMessage]:
    """Of a bag, but for the status, which holds times."""
    with BagReader(path) as bag:
        return list(bag.messages([topic for topic in bag.topics if topic != OUTPUT_STATUS]))


def test_all_of_them_run(without_ros):
    assert json.loads((without_ros / "scores.json").read_text())["samples"] == 4
    assert (without_ros / "report" / "index.html").is_file()
    assert (without_ros / "drive.png").is_file() and (without_ros / "rig.png").is_file()
    assert (without_ros / "results.json").is_file()
    assert (without_ros / "keyframe").is_dir() == KEYFRAME.is_dir()


def test_results_are_those_of_a_machine_with_ros(without_ros, dataset, tmp_path):
    pytest.importorskip("rclpy", reason="compares with ROS: needs the environment that `make test` makes")
    for words in commands(tmp_path, dataset):
        assert main(words) == 0
    for name in BAGS:
        assert content(without_ros / name) == content(tmp_path / name), name
    with BagReader(without_ros / "out") as ours, BagReader(tmp_path / "out") as theirs:
        assert ours.topics == theirs.topics
