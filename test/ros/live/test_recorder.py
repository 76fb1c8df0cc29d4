"""The recorder under everything that ends it: what it has heard can be read afterwards."""

from __future__ import annotations

import contextlib
import resource
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source .venv/bin/ros-activate")

import rclpy
from sensor_msgs.msg import Image
from support import wait_until

from bevformer_ros.ros.bag.files import BagReader, deserialize
from bevformer_ros.ros.conversions import header_of

pytestmark = pytest.mark.integration

TOPIC = "/recorded/image"
RECORD = [sys.executable, "-m", "bevformer_ros", "record", TOPIC, "-o"]
# The same command under a limit for the size of a file, at which a write fails as on a full disk.
LIMITED = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))
runpy.run_module("bevformer_ros", run_name="__main__", alter_sys=True)
"""


class Camera:
    """Publishes images of some bytes at a steady rate, each numbered by its stamp."""

    def __init__(self, size: int, period_s: float) -> None:
        self.published = 0
        self._size, self._period_s = size, period_s
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        node = rclpy.create_node("camera", context=self._context)
        self._publisher = node.create_publisher(Image, TOPIC, 10)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._publish)

    def __enter__(self) -> Camera:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._context.try_shutdown()

    def _publish(self) -> None:
        image = Image(height=self._size // 300, width=100, step=300, encoding="bgr8")
        image.data.frombytes(bytes(self._size))
        while not self._stopping.wait(self._period_s):
            image.header = header_of(self.published + 1, "camera")
            self._publisher.publish(image)
            self.published += 1


@pytest.fixture
def camera() -> Iterator[Camera]:
    with Camera(30_000, 0.01) as publishing:
        yield publishing


def size_of(folder: Path) -> int:
    with contextlib.suppress(FileNotFoundError):  # a journal of SQLite comes and goes
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return 0


def numbers_in(path: Path) -> list[int]:
    with BagReader(path) as bag:
        return [deserialize(entry).header.stamp.nanosec for entry in bag.messages([TOPIC])]


def assert_without_gap(numbers: list[int]) -> None:
    assert len(numbers) > 20
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_asked_to_end_it_completes_the_bag(number, camera, tmp_path, start_process):
    recorder = start_process([*RECORD, tmp_path / "bag"])
    wait_until(lambda: size_of(tmp_path) > 2_000_000, "two megabytes")
    recorder.signal(number)
    assert recorder.wait() == 0, recorder.output
    assert "Traceback" not in recorder.output
    assert [entry.name for entry in tmp_path.iterdir()] == ["bag"]
    assert_without_gap(numbers_in(tmp_path / "bag"))


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_killed_it_leaves_all_but_the_last_second(storage, camera, tmp_path, start_process, caplog):
    recorder = start_process([*RECORD, tmp_path / "bag", "--storage", storage])
    wait_until(lambda: size_of(tmp_path) > 4_000_000, "four megabytes")
    recorder.signal(signal.SIGKILL)
    recorder.wait()
    assert [entry.name for entry in tmp_path.iterdir()] == ["bag.partial"]
    assert_without_gap(numbers_in(tmp_path / "bag.partial"))
    assert f"{tmp_path / 'bag.partial'} has no metadata.yaml, as if its recording was cut off" in caplog.text
    again = start_process([*RECORD, tmp_path / "bag"])
    assert again.wait() == 1
    assert "bag.partial holds what an earlier run wrote until it broke off, and can be read" in again.output
    assert "move or remove it" in again.output


def test_a_full_disk_is_a_line_and_what_fitted_can_be_read(camera, tmp_path, start_process):
    recorder = start_process([sys.executable, "-c", LIMITED, *RECORD[3:], tmp_path / "bag"])
    assert recorder.wait() == 1
    assert "bag.partial cannot be written: File too large; what it holds so far can be read" in recorder.output
    assert "Traceback" not in recorder.output
    assert_without_gap(numbers_in(tmp_path / "bag.partial"))


def test_without_a_clock_it_says_so_and_keeps_little(tmp_path, start_process):
    """Nearly ten times more than may wait is published."""
    recorder = start_process([*RECORD, tmp_path / "bag", "--use-sim-time"])
    with Camera(600_000, 0.01) as camera:
        recorder.wait_for_output(f"recording {TOPIC}")
        before = resident_bytes(recorder.pid)
        wait_until(lambda: camera.published > 1000, "600 megabytes", timeout_s=120)
        recorder.wait_for_output("nobody publishes /clock, by which --use-sim-time stamps")
        assert resident_bytes(recorder.pid) - before < 250_000_000
    assert recorder.interrupt() == 0
    assert "messages were dropped before the first /clock" in recorder.output


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
