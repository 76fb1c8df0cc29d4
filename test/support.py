"""What integration tests need to handle other processes without sleeping."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
SMALLEST = REPOSITORY / "test" / "smallest.yaml"  # a model configuration that takes no time
DDS_PROFILE = REPOSITORY / "config" / "dds" / "fastdds_large_images.xml"


def detector_command(**parameters: object) -> list[str]:
    """The node as a process of its own, with the smallest network and raw images unless parameters say otherwise."""
    words = [sys.executable, "-m", "bevformer_ros.ros.node.process", "--ros-args"]
    defaults = {"rig": "nuscenes", "model": SMALLEST, "device": "cpu", "score_threshold": 0.0}
    for name, value in {**defaults, **parameters}.items():
        words += ["-p", f"{name}:={value}"]
    return words


def free_domain_id() -> int:
    """A ROS domain that no participant on this machine uses, up to the largest that is safe on Linux."""
    for domain in random.SystemRandom().sample(range(1, 102), 101):
        if all(_port_is_free(7400 + 250 * domain + offset) for offset in (0, 10)):
            return domain
    raise RuntimeError("all ROS domains from 1 to 101 are in use on this machine")


def _port_is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


@contextlib.contextmanager
def memory_growth_below(mebibytes: float) -> Iterator[None]:
    """Asserts that this process never needs so much more than at the beginning, whoever allocates it."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak counts anew
    before = _memory_kibibytes("VmRSS")
    try:
        yield
    finally:
        grown = (_memory_kibibytes("VmHWM") - before) / 1024
        assert grown < mebibytes, f"{grown:.0f} MiB were needed, expected less than {mebibytes:g}"


def _memory_kibibytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 30.0) -> None:
    """Return as soon as the condition holds; TimeoutError that says what was waited for otherwise."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s} s for {what}")
        time.sleep(0.01)


class RunningProcess:
    """A process in a group of its own. Standard output and error are collected together, line by line."""

    def __init__(self, command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
        self.command = [str(word) for word in command]
        self._process = subprocess.Popen(
            self.command,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        return "".join(self._lines)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait_for_output(self, text: str, timeout_s: float = 60.0) -> None:
        """Return once the text has appeared in the output; AssertionError if the process ends or time is up."""
        with self._news:
            self._news.wait_for(lambda: text in self.output or self._ended, timeout_s)
        assert text in self.output, f"{text!r} did not appear in the output of {self.command}:\n{self.output}"

    def wait(self, timeout_s: float = 60.0) -> int:
        """Exit status, once the process has ended by itself."""
        status = self._process.wait(timeout_s)
        self._reader.join(timeout_s)
        return status

    def interrupt(self, timeout_s: float = 15.0) -> int:
        """End the process group as Ctrl-C does; exit status."""
        self.signal(signal.SIGINT)
        return self.wait(timeout_s)

    def end(self) -> None:
        """End the process group by SIGINT, and by SIGKILL what is left of it after ten seconds."""
        if self._process.poll() is None:
            self.signal(signal.SIGINT)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                print(f"{self.command} did not end on SIGINT")
        self.signal(signal.SIGKILL)
        self._process.wait()
        self._reader.join(5)

    def signal(self, number: int) -> None:
        """To the whole group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self._lines.append(line)
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()
