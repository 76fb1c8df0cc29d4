"""The fault table against a real node over DDS: it lives, says what is wrong and what to do, and recovers."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field

import pytest
import yaml

pytest.importorskip("vision_msgs.msg", reason="needs the ROS environment that `make test` makes")

import torch
from diagnostic_msgs.msg import DiagnosticStatus
from fault_table import AT_START, DETECTOR_PHASES, PHASES, REFUSALS, Fault, Phase, document, foreign_arm
from faulty_car import FaultyCar, car_rig
from rig_publisher import START_TIMEOUT_S
from support import REPOSITORY, SMALLEST, RunningProcess, detector_command, wait_until

from bevformer_ros.config import load_yaml
from bevformer_ros.model.checkpoint import save_checkpoint
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.model.network import build_network
from bevformer_ros.types import SECOND_NS

pytestmark = [pytest.mark.integration, pytest.mark.faults]

PATIENCE_S = 20.0
NOTICE_S = 2.0
FAULTS = [fault for phase in (AT_START, *PHASES, *DETECTOR_PHASES) for fault in phase.faults]


@dataclass
class Observed:
    """Seconds from the fault to each of its marks, and from its end to the recovery."""

    said_s: dict[str, float] = field(default_factory=dict)
    recovered_s: float | None = None


class Stage:
    """A node and the car around it."""

    def __init__(self, node: RunningProcess, car: FaultyCar) -> None:
        self.node, self.car = node, car
        self.observed: dict[str, Observed] = {}

    def diagnostics(self, camera: str) -> DiagnosticStatus | None:
        """The latest of a camera, or of the detector."""
        name = f"/detector: {camera}" if camera else "/detector"
        entries = (entry for message in reversed(self.car.received["diagnostics"]) for entry in message.status)
        return next((entry for entry in entries if entry.name == name), None)

    def problems(self, camera: str) -> list[str]:
        entry = self.diagnostics(camera)
        return (
            [] if entry is None else next(value.value for value in entry.values if value.key == "problems").split(", ")
        )

    def is_well(self) -> bool:
        cameras = [camera.name for camera in self.car.rig.cameras]
        entries = [self.diagnostics(name) for name in ("", *cameras)]
        return all(entry is not None and entry.level == DiagnosticStatus.OK for entry in entries)

    def observe(self, fault: Fault) -> Observed:
        """What was seen of a fault; the faults of its phase happen at once, and only once."""
        phase = next(phase for phase in (AT_START, *PHASES, *DETECTOR_PHASES) if fault in phase.faults)
        if fault.what not in self.observed:
            self.play(phase)
        return self.observed[fault.what]

    def play(self, phase: Phase, log_begin: int | None = None) -> None:
        """log_begin: where the log begins to speak of it, if it has begun already."""
        begin_s = time.monotonic()
        self.observed.update({fault.what: Observed() for fault in phase.faults})
        if log_begin is None:
            log_begin = len(self.node.output)
            for fault in phase.faults:
                fault.inflict(self.car)
        with suppress(TimeoutError):  # the test of the row tells what was missing
            wait_until(lambda: self._look(phase, begin_s, log_begin), phase.name, PATIENCE_S)
        heal_s = time.monotonic()
        for fault in phase.faults:
            fault.heal(self.car)
        with suppress(TimeoutError):
            wait_until(lambda: self._has_recovered(phase, heal_s), phase.name, PATIENCE_S)

    def _look(self, phase: Phase, begin_s: float, log_begin: int) -> bool:
        now_s = time.monotonic() - begin_s
        lines = self.node.output[log_begin:].splitlines()
        problems = list(self.car.last_status.problems)
        complete = True
        for fault in phase.faults:
            entry, own = self.diagnostics(fault.camera), self.problems(fault.camera)
            marks = {
                "diagnostics": entry is not None and entry.level == fault.level and fault.code in own,
                "detector": self.diagnostics("").level == phase.level,
                "log": any(_says(line, fault) for line in lines),
                "status": any(_says(line, fault) for line in problems),
            }
            for name, seen in marks.items():
                if seen:
                    self.observed[fault.what].said_s.setdefault(name, now_s)
            complete = complete and len(self.observed[fault.what].said_s) == len(marks)
        return complete

    def _has_recovered(self, phase: Phase, heal_s: float) -> bool:
        for fault in phase.faults:
            seen = self.observed[fault.what]
            if fault.code not in self.problems(fault.camera) and seen.recovered_s is None:
                seen.recovered_s = time.monotonic() - heal_s
        return self.is_well()


def _says(line: str, fault: Fault) -> bool:
    return f"{fault.camera}: " * bool(fault.camera) in line and all(part in line for part in fault.says)


@pytest.fixture(scope="module")
def stage(tmp_path_factory) -> Iterator[Stage]:
    folder, rig, config = tmp_path_factory.mktemp("faults"), car_rig(), load_yaml(ModelConfig, SMALLEST)
    (folder / "rig.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(asdict(rig)))))
    torch.manual_seed(0)
    save_checkpoint(folder / "smallest.safetensors", build_network(config).state_dict(), config)
    parameters = {
        "rig": folder / "rig.yaml",
        "model": folder / "smallest.safetensors",
        "minimum_cameras": 1,
        "use_sim_time": "true",
        "health_timeout_s": 1.2,
    }
    node = RunningProcess(detector_command(**parameters), {"OMP_NUM_THREADS": "1"})
    try:
        with FaultyCar(rig) as car:
            unmounted = [fault.camera for fault in AT_START.faults if fault.code == "no_transform"]
            for camera in rig.cameras:
                if camera.name not in unmounted:
                    car.mount(camera.name)
            for fault in AT_START.faults:
                fault.inflict(car)
            node.wait_for_output("detecting with", START_TIMEOUT_S)
            car.drive()
            made = Stage(node, car)
            wait_until(lambda: made.diagnostics("") and car.received["status"], "the node to speak", START_TIMEOUT_S)
            made.play(AT_START, log_begin=0)
            yield made
    finally:
        node.end()
        print(node.output)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_a_fault_is_said_with_its_remedy_and_passes(stage, fault):
    seen = stage.observe(fault)
    # On a machine that others use too, everything takes longer.
    limit_s = NOTICE_S * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    assert set(seen.said_s) == {"diagnostics", "detector", "log", "status"}, stage.node.output[-4000:]
    print(f"{fault.what}: {seen.said_s}, recovered after {seen.recovered_s} s")
    if fault not in AT_START.faults:
        assert max(seen.said_s.values()) < limit_s
    assert seen.recovered_s is not None
    assert stage.node.is_running and "Traceback" not in stage.node.output


def test_a_bag_that_starts_again_costs_no_more_than_the_sets_on_their_way(stage):
    before = stage.car.last_status
    wait_until(lambda: stage.car.last_status.sets_processed >= before.sets_processed + 10, "ten sets")
    stage.car.now_ns -= 5 * SECOND_NS
    wait_until(lambda: stage.car.last_status.sets_processed >= before.sets_processed + 40, "thirty more")
    after = stage.car.last_status
    assert dropped(after) - dropped(before) <= 5


def test_a_foreign_frame_whose_stamps_go_back_and_forth_is_nobodys_business(stage):
    wait_until(stage.is_well, "the node to be well", PATIENCE_S)
    before = stage.car.last_status
    stage.car.before_set = foreign_arm
    wait_until(lambda: stage.car.last_status.sets_processed >= before.sets_processed + 30, "thirty sets")
    stage.car.before_set = None
    assert dropped(stage.car.last_status) - dropped(before) <= 1
    assert stage.is_well()


def dropped(status) -> int:
    return sum(entry.count for entry in status.sets_dropped)


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.what)
def test_what_cannot_work_is_refused_in_one_line(refusal, tmp_path):
    with pytest.raises(ValueError, match=re.escape(refusal.says)):
        refusal.attempt(tmp_path)


def test_the_documentation_holds_the_table():
    expected = document()
    path = REPOSITORY / "docs" / "faults.md"
    assert path.read_text() == expected, f"make it anew: python test/fault_table.py > {path.relative_to(REPOSITORY)}"
