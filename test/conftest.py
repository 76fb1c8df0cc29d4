"""Fixtures for all tests, and the isolation of everything that talks over DDS."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import golden_cases
import own_process
import pytest
from support import DDS_PROFILE, REPOSITORY, RunningProcess, free_domain_id

from bevformer_ros.resources import DDS_PROFILE_VARIABLE

# Where the tests themselves were started to ignore it ("&" in a script), what they start must still end by it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Before any test starts ROS: no other ROS on this machine or network takes part.
os.environ["ROS_DOMAIN_ID"] = str(free_domain_id())
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ[DDS_PROFILE_VARIABLE] = str(DDS_PROFILE)
# Without it, messages take an int where a float belongs and send other numbers.
os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"

# Small tensors gain nothing from a second thread, and threads that wait for each other on a busy machine lose much.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

# Read when Triton is imported, by whomever: without a GPU its kernels run in its interpreter.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

StartProcess = Callable[..., RunningProcess]


def pytest_configure(config: pytest.Config) -> None:
    own_process.register(config)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if golden_cases.left_out:
        cases = ", ".join(sorted(golden_cases.left_out))
        text = f"GOLDEN CASES LEFT OUT, not in {golden_cases.DIRECTORY}: {cases}"
        terminalreporter.write_line(text, yellow=True, bold=True)


@pytest.fixture(scope="session")
def shared_directory() -> Path:
    """Test data beside the checkout, not part of it."""
    directory = REPOSITORY.parent / "shared"
    if not directory.is_dir():
        pytest.skip(f"needs the test data in {directory}")
    return directory


@pytest.fixture
def start_process() -> Iterator[StartProcess]:
    """start_process(command, VARIABLE="value", ...) -> RunningProcess; all of them are ended after the test.

    Their output is shown if the test fails.
    """
    running: list[RunningProcess] = []

    def start(command: list[str | Path], **environment: str) -> RunningProcess:
        running.append(RunningProcess(command, environment))
        return running[-1]

    yield start
    for process in reversed(running):
        process.end()
        print(f"--- output of {' '.join(process.command)}\n{process.output}")
