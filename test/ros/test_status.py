from __future__ import annotations

import pytest

pytest.importorskip("vision_msgs.msg", reason="needs the ROS environment that `make test` makes")

from diagnostic_msgs.msg import DiagnosticStatus

from bevformer_ros.inference.pipeline import HistoryStatus
from bevformer_ros.ros.conversions import header_of
from bevformer_ros.ros.status import DetectorRecord, SetReport
from bevformer_ros.types import MILLISECOND_NS

HISTORY = HistoryStatus(depth=1, slots=3, bytes=4096, resets={"gap": 2})


def report(milliseconds=0, **fields):
    return SetReport(header_of(milliseconds * MILLISECOND_NS, "base_link"), (True, False), **fields)


def counts(entries):
    return {entry.reason: entry.count for entry in entries}


@pytest.fixture
def record():
    return DetectorRecord(("CAM_A", "CAM_B"), "tiny", trained=True)


def test_nothing_has_happened(record):
    assert record.period_ns is None
    status = record.diagnose("detector", (), 1.0)
    assert status.level == DiagnosticStatus.OK
    assert {entry.key: entry.value for entry in status.values}["rate_hz"] == "0.0"


def test_a_processed_set(record):
    latencies = {"queue": 1.5, "decode": 20.0}
    status = record.add(report(skew_ms=43.0, latencies_ms=latencies, total_latency_ms=30.0), {"unmatched": 3}, HISTORY)
    assert (status.model, status.trained_weights, status.sets_processed) == ("tiny", True, 1)
    assert (status.cameras_used, status.cameras_missing) == (["CAM_A"], ["CAM_B"])
    assert [(entry.stage, entry.milliseconds) for entry in status.latencies] == list(latencies.items())
    assert (status.skew_ms, status.total_latency_ms) == (43.0, 30.0)
    assert (status.history_depth, status.history_slots, status.history_bytes) == (1, 3, 4096)
    assert counts(status.history_resets) == {"gap": 2}
    assert counts(status.images_dropped) == {"unmatched": 3}


def test_drops_are_counted_by_reason_and_keep_the_history(record):
    record.add(report(), {}, HISTORY)
    for reason in ("superseded", "no_transform", "superseded"):
        status = record.add(report(drop_reason=reason), {}, None)
    assert status.sets_processed == 1
    assert counts(status.sets_dropped) == {"superseded": 2, "no_transform": 1}
    assert status.history_slots == 3


def test_period_of_processed_sets(record):
    for milliseconds in (0, 100, 200, 300):
        record.add(report(milliseconds), {}, None)
        record.add(report(milliseconds + 50, drop_reason="superseded"), {}, None)
    assert record.period_ns == pytest.approx(100 * MILLISECOND_NS)
    record.add(report(10), {}, None)  # a bag starts again
    assert record.period_ns == pytest.approx(100 * MILLISECOND_NS)


def test_diagnosis_speaks_of_the_time_since_the_last_one(record):
    record.add(report(), {}, HISTORY)
    record.add(report(drop_reason="superseded"), {}, None)
    status = record.diagnose("detector", ("CAM_B",), 0.5)
    assert status.level == DiagnosticStatus.WARN
    assert status.message == "no images from CAM_B; sets dropped: 1 superseded"
    values = {entry.key: entry.value for entry in status.values}
    assert (values["rate_hz"], values["dropped_superseded"]) == ("2.0", "1")
    assert record.diagnose("detector", (), 0.5).level == DiagnosticStatus.OK
    assert record.diagnose("detector", ("CAM_A", "CAM_B"), 0.5).level == DiagnosticStatus.ERROR


def test_random_weights_are_said_every_time():
    record = DetectorRecord(("CAM_A", "CAM_B"), "tiny", trained=False)
    assert not record.add(report(), {}, None).trained_weights
    for _ in range(2):
        status = record.diagnose("detector", (), 1.0)
        assert status.level == DiagnosticStatus.WARN
        assert "untrained" in status.message
