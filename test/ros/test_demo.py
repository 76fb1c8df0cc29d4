"""The demo as a user runs it, shortened and with the smallest model."""

import os
import signal
import sys
from pathlib import Path

import cv2
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source .venv/bin/ros-activate")

from bevformer_ros.ros.bag import BagReader, deserialize
from bevformer_ros.ros.demo import OUTPUT, RECORDED

SMALLEST = Path(__file__).parent / "smallest.yaml"
DEMO = [sys.executable, "-m", "bevformer_ros.cli", "demo", "--seconds", "3", "--rate", "2"]

pytestmark = pytest.mark.integration


def test_demo_ends_with_a_table_and_a_picture(tmp_path, start_process):
    demo = start_process([*DEMO, "--out", tmp_path / "out", "--model", SMALLEST])
    assert demo.wait(180) == 0, demo.output
    assert "sets in                       6" in demo.output
    assert "sets not accounted for        0" in demo.output
    assert "total, last image to boxes" in demo.output
    assert "UNTRAINED" in demo.output
    assert str(tmp_path / "out" / "demo.png") in demo.output
    picture = cv2.imread(str(tmp_path / "out" / "demo.png"))
    assert picture.shape[1] > 2 * picture.shape[0]
    with BagReader(tmp_path / "out" / "result") as bag:
        assert set(RECORDED) <= set(bag.topics)
        arrays = [deserialize(entry) for entry in bag.messages([OUTPUT.boxes])]
    assert any(array.detections for array in arrays), "boxes of random weights take the way out, too"


def test_demo_shows_why_the_detector_did_not_start(tmp_path, start_process):
    demo = start_process([*DEMO, "--out", tmp_path / "out", "--model", tmp_path / "absent.yaml"])
    assert demo.wait(180) == 1, demo.output
    assert "the detector ended with status 1" in demo.output
    assert "absent.yaml" in demo.output


def test_demo_notices_that_the_detector_died(tmp_path, start_process):
    demo = start_process([*DEMO, "--out", tmp_path / "out", "--model", SMALLEST])
    demo.wait_for_output("3/4")
    children = Path(f"/proc/{demo.pid}/task/{demo.pid}/children").read_text().split()
    detector = next(pid for pid in children if "ros.node" in Path(f"/proc/{pid}/cmdline").read_text())
    os.kill(int(detector), signal.SIGKILL)
    assert demo.wait(60) == 1, demo.output
    assert "the detector ended before its work was done" in demo.output
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)
