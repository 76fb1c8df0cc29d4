"""A process whose GPU is lost says so and ends, so that its supervisor can start another: its own process, real DDS."""

from __future__ import annotations

import pytest

pytest.importorskip("vision_msgs.msg", reason="needs the ROS environment that `make test` makes")

from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from rig_publisher import START_TIMEOUT_S, DetectorListener, RigPublisher
from support import REPOSITORY, detector_command, wait_until

from bevformer_ros.config import RigConfig, load_yaml

pytestmark = [pytest.mark.integration, pytest.mark.faults]

RIG = load_yaml(RigConfig, REPOSITORY / "config" / "rigs" / "nuscenes.yaml")
WHY = "CUDA error: an illegal memory access was encountered; only a new process can use the GPU again"
GPU_LOST = 3


@pytest.fixture
def start_detector(start_process):
    """start_detector(when, parameter=value, ...): loses its GPU while "loading", or after so many sets."""

    def start(when: object, **values: object):
        python, _, _, *arguments = detector_command(device="cuda", precision="float32", **values)
        script = REPOSITORY / "test" / "lost_gpu.py"
        return start_process([python, script, str(when), *arguments], OMP_NUM_THREADS="1")

    return start


def lost(listener: DetectorListener) -> DiagnosticStatus | None:
    """The detector's own status, once it tells of the loss."""
    entries = (entry for message in listener.received["diagnostics"] for entry in message.status)
    return next((entry for entry in entries if entry.name == "/detector" and WHY in entry.message), None)


def test_while_it_drives(start_detector):
    node = start_detector(2)
    with RigPublisher(RIG, outputs=["status"]) as rig:
        rig.warm_up()
        while not rig.received["status"] or not rig.received["status"][-1].sets_dropped:
            count = len(rig.received["status"])
            rig.publish_next()
            rig.wait_for("status", count + 1)
        assert node.wait() == GPU_LOST
        wait_until(lambda: lost(rig), "the diagnostics of the loss")
        status = lost(rig)
        assert status.level == DiagnosticStatus.ERROR
        assert "gpu_lost" in status.values[0].value
        assert any(WHY in problem for message in rig.received["idle"] for problem in message.problems)
    assert node.output.count(WHY) == 1
    assert node.output.count("Traceback") == 1  # of the set that met it


def test_at_the_start(start_detector):
    node = start_detector("loading")
    assert node.wait(START_TIMEOUT_S) == GPU_LOST
    assert node.output.count(WHY) == 1
    assert "Traceback" not in node.output


def test_under_a_lifecycle_manager(start_detector):
    """Which is answered before the process ends."""
    node = start_detector("loading", autostart="false")
    with DetectorListener(outputs=["status"]) as listener:
        assert listener.change_state(Transition.TRANSITION_CONFIGURE)
        wait_until(lambda: listener.node.count_publishers("/diagnostics"), "the diagnostics to be discovered")
        assert not listener.change_state(Transition.TRANSITION_ACTIVATE)
        assert node.wait(START_TIMEOUT_S) == GPU_LOST
        wait_until(lambda: lost(listener), "the diagnostics of the loss")
        assert lost(listener).level == DiagnosticStatus.ERROR
    assert node.output.count(WHY) == 1
