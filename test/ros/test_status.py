from __future__ import annotations

import pytest

pytest.importorskip("vision_msgs.msg", reason="needs the ROS environment that `make test` makes")

from bevformer_ros.msg import DetectorStatus
from diagnostic_msgs.msg import DiagnosticStatus

from bevformer_ros.inference.frame_history import HistoryStatus
from bevformer_ros.ros.conversions import header_of
from bevformer_ros.ros.node.camera_health import Level, Problem
from bevformer_ros.ros.node.health import Assessment
from bevformer_ros.ros.status import DetectorRecord, SetReport, diagnostics_of
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
    status = record.idle(header_of(0, "base_link"))
    assert (status.sets_processed, status.level, list(status.problems)) == (0, 0, [])
    assert (status.history_depth, status.history_slots, status.history_bytes) == (0, 0, 0)
    (detector,) = diagnostics_of(Assessment((), {}), "/detector", {})
    assert (detector.level, detector.message) == (DiagnosticStatus.OK, "OK")


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
    assert (status.sets_processed, status.skew_ms) == (1, 0.0)
    assert counts(status.sets_dropped) == {"superseded": 2, "no_transform": 1}
    assert status.history_slots == 3


def test_period_of_processed_sets(record):
    for milliseconds in (0, 100, 200, 300):
        record.add(report(milliseconds), {}, None)
        record.add(report(milliseconds + 50, drop_reason="superseded"), {}, None)
    assert record.period_ns == pytest.approx(100 * MILLISECOND_NS)
    record.add(report(500), {}, None)  # one of 200 ms moves it by a fifth of the difference
    assert record.period_ns == pytest.approx(120 * MILLISECOND_NS)
    record.add(report(10), {}, None)  # a bag starts again
    assert record.period_ns == pytest.approx(120 * MILLISECOND_NS)


def test_status_and_diagnostics_say_the_same(record):
    problems = (
        Problem("CAM_B", "no_images", Level.ERROR, "no images for 2.0 s"),
        Problem("", "fewer_cameras", Level.WARN, "detecting with 1 of 2 cameras"),
    )
    assessment = Assessment(problems, {"CAM_B": {"rate_hz": "0.0"}, "": {"rate_hz": "9.9"}})
    record.note_health(assessment)
    status = record.add(report(), {}, HISTORY)
    detector, first, second = diagnostics_of(assessment, "/detector", {"CAM_A": "/a", "CAM_B": "/b"})
    assert [entry.level for entry in (detector, first, second)] == [
        DiagnosticStatus.WARN,
        DiagnosticStatus.OK,
        DiagnosticStatus.ERROR,
    ]
    assert status.level == DiagnosticStatus.WARN[0]
    assert status.problems == ["CAM_B: no images for 2.0 s", "detecting with 1 of 2 cameras"]
    assert detector.message == "; ".join(status.problems)
    assert (first.message, second.message) == ("OK", "CAM_B: no images for 2.0 s")
    assert (second.name, second.hardware_id) == ("/detector: CAM_B", "/b")
    assert [(entry.key, entry.value) for entry in second.values] == [("problems", "no_images"), ("rate_hz", "0.0")]


def test_an_idle_status_keeps_the_counters(record):
    record.add(report(latencies_ms={"queue": 1.0}), {"unmatched": 3}, HISTORY)
    status = record.idle(header_of(5 * MILLISECOND_NS, "base_link"))
    assert (status.event, status.sets_processed) == (DetectorStatus.IDLE, 1)
    assert (list(status.latencies), list(status.cameras_used)) == ([], [])
    assert counts(status.images_dropped) == {"unmatched": 3}
    assert record.add(report(), {}, None).event == DetectorStatus.SET
