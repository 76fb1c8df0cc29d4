"""The demo as a user runs it, shortened and with the smallest model."""

import os
import re
import signal
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
from PIL import Image

pytest.importorskip("rclpy", reason="needs ROS 2: source .venv/bin/ros-activate")

from support import REPOSITORY, SMALLEST

from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.evaluation.matching import tally
from bevformer_ros.resources import DEFAULT_RIG, config_file
from bevformer_ros.ros.bag.files import BagReader, BagWriter, deserialize
from bevformer_ros.ros.bag.pictures import picture, sets, write_animation
from bevformer_ros.ros.bag.run_summary import Summary
from bevformer_ros.ros.bag.simulated_drive import simulate
from bevformer_ros.ros.conversions import stamp_to_ns
from bevformer_ros.ros.live.demo import RECORDED
from bevformer_ros.ros.topics import OUTPUT, TRUTH
from bevformer_ros.simulation.drive import Drive

DEMO = [sys.executable, "-m", "bevformer_ros", "demo", "--seconds", "3", "--rate", "2"]

pytestmark = pytest.mark.integration


def test_demo_ends_with_a_table_and_a_picture(tmp_path, start_process):
    demo = start_process([*DEMO, "--output", tmp_path / "out", "--model", SMALLEST])
    assert demo.wait(180) == 0, demo.output
    assert "sets in                       6" in demo.output
    assert "sets not accounted for        0" in demo.output
    assert "total, last image to boxes" in demo.output
    assert "UNTRAINED" in demo.output
    assert str(tmp_path / "out" / "demo.png") in demo.output
    picture = cv2.imread(str(tmp_path / "out" / "demo.png"))
    assert picture.shape[1] > 2 * picture.shape[0]
    assert re.search(r"starting the detector, model \S+, \d+\.\d\d s a set here", demo.output)
    with BagReader(tmp_path / "out" / "result") as bag:
        assert set(RECORDED) <= set(bag.topics)
        arrays = [deserialize(entry) for entry in bag.messages([OUTPUT.boxes])]
    assert any(array.detections for array in arrays), "boxes of random weights take the way out, too"


def test_demo_finds_what_the_readme_says_of_a_world_that_its_weights_never_saw(tmp_path, start_process):
    left_behind = tmp_path / "out" / "result" / "result.mcap"  # by a demo that was killed
    left_behind.parent.mkdir(parents=True)
    left_behind.touch()
    demo = start_process([sys.executable, "-m", "bevformer_ros", "demo", "--output", tmp_path / "out"])
    assert demo.wait(240) == 0, demo.output
    assert "model demo" in demo.output and "UNTRAINED" not in demo.output
    found = re.search(r"^(\d+) of (\d+) objects found .*, (\d+) of (\d+) boxes false", demo.output, re.MULTILINE)
    hits, objects, false, boxes = map(int, found.groups())
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    quoted = re.search(r"(\d+) % of the objects found, (\d+) % of the boxes false", readme)
    assert [100 * hits / objects, 100 * false / boxes] == pytest.approx(list(map(int, quoted.groups())), abs=2.0)


def test_what_the_demo_counts_and_shows(tmp_path):
    """With the truth as detections everything is found, and the picture warns of nothing."""
    rig = load_yaml(RigConfig, config_file("rigs", DEFAULT_RIG))
    simulate(tmp_path / "drive", rig, Drive(9000, seconds=1.0, rate=2.0, size=(160, 90)))
    with BagReader(tmp_path / "drive") as played, BagWriter(tmp_path / "result") as result:
        for entry in played.messages(TRUTH):
            topic = OUTPUT.boxes if entry.topic == TRUTH.boxes else OUTPUT.kinematics
            message = deserialize(entry)
            result.write(topic, message, entry.stamp_ns)
    summary = Summary("ideal", True, 2, 2, {}, 0, (), frozenset())
    with BagReader(tmp_path / "drive") as played, BagReader(tmp_path / "result") as result:
        found = tally(sets(played, result), 2.0)
        assert found.hits == found.objects == found.boxes > 20
        trained, untrained = (picture(played, result, rig, replace(summary, trained=know)) for know in (True, False))
        stamps = frozenset(stamp_to_ns(deserialize(entry).header.stamp) for entry in played.messages([TRUTH.boxes]))
        write_animation(tmp_path / "demo.webp", played, result, rig, replace(summary, processed_stamps=stamps))
    assert trained.shape[0] < untrained.shape[0], "the latter has a warning above it"
    with Image.open(tmp_path / "demo.webp") as animation:
        assert animation.n_frames == 2 and animation.size[0] == 960 and animation.info["loop"] == 0


def test_demo_says_why_there_is_no_detector(tmp_path, start_process):
    demo = start_process([*DEMO, "--output", tmp_path / "out", "--model", tmp_path / "absent.yaml"])
    assert demo.wait(180) == 1, demo.output
    assert "absent.yaml" in demo.output


def test_demo_notices_that_the_detector_died(tmp_path, start_process):
    demo = start_process([*DEMO, "--output", tmp_path / "out", "--model", SMALLEST])
    demo.wait_for_output("3/4")
    children = Path(f"/proc/{demo.pid}/task/{demo.pid}/children").read_text().split()
    detector = next(pid for pid in children if "ros.node" in Path(f"/proc/{pid}/cmdline").read_text())
    os.kill(int(detector), signal.SIGKILL)
    assert demo.wait(60) == 1, demo.output
    assert "the detector ended before its work was done" in demo.output
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)
