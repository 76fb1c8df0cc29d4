"""What the executable says before there is a node. What it does with one: test_detector_node, test_endings."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("rclpy", reason="needs the ROS environment that `make test` makes")

from bevformer_ros.ros.node import process


@pytest.fixture
def run(monkeypatch):
    """run(word, ...): exit status."""
    monkeypatch.setattr(process, "_watch_signals", lambda stopping, ready: None)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["detector", *words])
        return process.main()

    return call


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_starts_no_node(run, capsys, word):
    assert run(word) == 0
    assert "usage: detector" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rig", "nuscenes"], "unknown arguments --rig nuscenes"),
        (["--ros-args", "-r", "/image:=bad!topic"], "Couldn't parse remap rule"),
        (["--ros-args", "-r", "__ns:=/1"], "Couldn't parse remap rule"),
    ],
)
def test_what_it_does_not_understand(run, capsys, words, message):
    assert run(*words) == 2
    assert message in capsys.readouterr().err
