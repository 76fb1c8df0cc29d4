"""Child processes: their log, their end, and that nothing of them stays."""

import os
import sys

import pytest
from support import wait_until

pytest.importorskip("rclpy", reason="bevformer_ros.ros needs ROS 2: source .venv/bin/ros-activate")

from bevformer_ros.ros.live.child_process import ChildProcess

WAITS = "import time; print('ready', flush=True); time.sleep(60)"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_process_that_ends_by_itself(tmp_path):
    with ChildProcess("it", python("print('one'); print('two'); raise SystemExit(3)"), tmp_path / "log") as process:
        wait_until(lambda: process.status is not None, "the end")
        assert process.status == 3
        assert process.log_tail(1) == "two"
    assert process.end() == 3


def test_it_is_interrupted_at_the_end(tmp_path):
    with ChildProcess("it", python(WAITS), tmp_path / "log") as process:
        wait_until(lambda: "ready" in process.log_tail(), "its start")
        assert process.status is None
    assert process.status is not None
    assert "KeyboardInterrupt" in process.log_tail()


def test_its_children_are_interrupted_too(tmp_path):
    start = f"child = subprocess.Popen([sys.executable, '-c', {WAITS!r}])"
    code = f"import subprocess, sys; {start}; print(child.pid, flush=True); child.wait()"
    with ChildProcess("it", python(code), tmp_path / "log") as process:
        wait_until(lambda: "ready" in process.log_tail(), "its child")
        grandchild = int(next(line for line in process.log_tail().splitlines() if line.isdigit()))

    def is_gone() -> bool:
        try:
            os.kill(grandchild, 0)
        except ProcessLookupError:
            return True
        return False

    wait_until(is_gone, "the end of its child")
