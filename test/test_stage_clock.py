from __future__ import annotations

import time

import pytest

from bevformer_ros.stage_clock import StageClock


def test_a_clock_without_marks_has_no_stages():
    assert StageClock().latencies_ms() == {}


def test_each_stage_lasts_from_the_mark_before(monkeypatch):
    moments = iter([10.0, 10.5, 10.5, 12.0])
    monkeypatch.setattr("bevformer_ros.stage_clock.time.perf_counter", lambda: next(moments))
    clock = StageClock()
    for stage in ("queue", "decode", "detector"):
        clock.mark(stage)
    assert clock.latencies_ms() == pytest.approx({"queue": 500.0, "decode": 0.0, "detector": 1500.0})
    assert list(clock.latencies_ms()) == ["queue", "decode", "detector"]


def test_all_stages_together_last_as_long_as_the_clock_ran():
    started = time.perf_counter()
    clock = StageClock()
    clock.mark("first")
    clock.mark("second")
    assert 0 <= sum(clock.latencies_ms().values()) <= 1000 * (time.perf_counter() - started)
