"""SIGINT and SIGTERM end the node soon and cleanly, whatever it is doing.

REPETITIONS=20 pytest test/ros/node/test_endings.py -m 'slow or not slow' -s
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("vision_msgs.msg", reason="needs the ROS environment that `make test` makes")

import yaml
from faulty_car import FaultyCar, car_rig
from rig_publisher import START_TIMEOUT_S
from support import SMALLEST, RunningProcess, detector_command, wait_until

pytestmark = pytest.mark.integration

LIMIT_S = 3.0
REPETITIONS = int(os.environ.get("REPETITIONS", "1"))


def importing(node: RunningProcess, car: FaultyCar) -> None:
    process = Path(f"/proc/{node.pid}")
    wait_until(lambda: catches(process, signal.SIGTERM), "the process to watch for signals", START_TIMEOUT_S)
    wait_until(lambda: "libtorch" in (process / "maps").read_text(), "torch to be imported", START_TIMEOUT_S)


def catches(process: Path, number: signal.Signals) -> bool:
    """Whether it has a handler of its own."""
    lines = (process / "status").read_text().splitlines()
    caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:"))
    return bool(caught >> (number - 1) & 1)


def loading(node: RunningProcess, car: FaultyCar) -> None:
    node.wait_for_output("loading the network", START_TIMEOUT_S)


def warming_up(node: RunningProcess, car: FaultyCar) -> None:
    node.wait_for_output("warming it up", START_TIMEOUT_S)


def in_the_network(node: RunningProcess, car: FaultyCar) -> None:
    drive(node, car)
    node.wait_for_output("the network has worked on one set", START_TIMEOUT_S)


def waiting_for_transforms(node: RunningProcess, car: FaultyCar) -> None:
    car.odometry = False
    drive(node, car)
    wait_until(lambda: car.last_status is not None and car.last_status.sets_dropped, "a set to pile up behind another")


def drive(node: RunningProcess, car: FaultyCar) -> None:
    for camera in car.rig.cameras:
        car.mount(camera.name)
    node.wait_for_output("detecting with", START_TIMEOUT_S)
    car.drive()


BIG = {"model": "bevformerv2_r50_t1_base"}
STATES = [
    (importing, signal.SIGINT, BIG),
    (importing, signal.SIGTERM, BIG),
    (loading, signal.SIGINT, BIG),
    (loading, signal.SIGTERM, BIG),
    (warming_up, signal.SIGINT, "slow"),
    (warming_up, signal.SIGTERM, "slow"),
    (in_the_network, signal.SIGINT, "slow"),
    (in_the_network, signal.SIGTERM, "slow"),
    (waiting_for_transforms, signal.SIGINT, {"transform_timeout_ms": 10000}),
    (waiting_for_transforms, signal.SIGTERM, {"transform_timeout_ms": 10000}),
]
# One of each pair in every run of the suite.
IN_THE_SUITE = {(importing, signal.SIGTERM), (loading, signal.SIGINT), (loading, signal.SIGTERM)}
IN_THE_SUITE |= {(in_the_network, signal.SIGINT), (waiting_for_transforms, signal.SIGTERM)}


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory) -> Path:
    """A network that takes seconds."""
    config = yaml.safe_load(SMALLEST.read_text())
    config |= {"name": "slow", "bev": {"rows": 300, "columns": 300}}
    config["encoder"]["layers"] = 6
    path = tmp_path_factory.mktemp("endings") / "slow.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.parametrize("repetition", range(REPETITIONS))
@pytest.mark.parametrize(
    ("reach", "number", "parameters"),
    [
        pytest.param(
            reach,
            number,
            parameters,
            id=f"{reach.__name__}-{number.name}",
            marks=[] if (reach, number) in IN_THE_SUITE else pytest.mark.slow,
        )
        for reach, number, parameters in STATES
    ],
)
def test_a_signal_ends_it_soon(
    reach: Callable[[RunningProcess, FaultyCar], None], number: signal.Signals, parameters, repetition, slow_model
) -> None:
    given = {"model": slow_model} if parameters == "slow" else parameters
    node = RunningProcess(detector_command(use_sim_time="true", minimum_cameras=1, **given), {})
    try:
        with FaultyCar(car_rig()) as car:
            reach(node, car)
            begin_s = time.monotonic()
            node.signal(number)
            assert node.wait(60.0) == 0
            took_s = time.monotonic() - begin_s
    finally:
        node.end()
    print(f"{reach.__name__} {number.name}: {took_s:.2f} s, load {os.getloadavg()[0]:.1f}")
    assert took_s < LIMIT_S
    assert "Traceback" not in node.output
