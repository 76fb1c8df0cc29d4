"""Recording and replaying, with a recorder that stands in for CUDA; and that the detector's steps could be recorded."""

from __future__ import annotations

import logging

import pytest
import torch
from fake_recorder import FakeRecorder
from torch import Tensor

from bevformer_ros.inference.graphs import GraphRunner


class Doubling:
    def __init__(self) -> None:
        self.marks: list[str] = []

    def __call__(self, values: Tensor, mark) -> tuple[Tensor]:
        mark("inside")
        return (2 * values,)

    def run(self, runner: GraphRunner, *values: float) -> list[float]:
        (doubled,) = runner("double", self, self.marks.append, torch.tensor(values))
        return doubled.tolist()


def test_without_a_recorder_everything_is_eager() -> None:
    runner, double = GraphRunner(None), Doubling()
    assert double.run(runner, 1) == [2]
    assert double.marks == ["inside"]
    assert runner.recordings == 0


def test_a_recording_is_made_once_for_each_shape_and_fed_anew() -> None:
    recorder, double = FakeRecorder(), Doubling()
    runner = GraphRunner(recorder)
    assert [double.run(runner, 1), double.run(runner, 3), double.run(runner, 4)] == [[2], [6], [8]]
    assert recorder.recorded == 1
    assert double.run(runner, 1, 2) == [2, 4]
    assert double.run(runner, 5) == [10]
    assert recorder.recorded == runner.recordings == 2
    assert double.marks == 5 * ["double"]


def test_outputs_stay_where_they_are() -> None:
    runner, double = GraphRunner(FakeRecorder()), Doubling()
    first, second = (runner("double", double, double.marks.append, torch.tensor([value])) for value in (1.0, 5.0))
    assert first[0].data_ptr() == second[0].data_ptr()


def test_what_cannot_be_recorded_runs_eagerly_and_the_log_says_once_why(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(function):
        raise RuntimeError("operation not permitted when stream is capturing\nand more lines")

    runner, double = GraphRunner(refuse), Doubling()
    with caplog.at_level(logging.WARNING):
        assert [double.run(runner, 1), double.run(runner, 2), double.run(runner, 1, 2)] == [[2], [4], [2, 4]]
    (record,) = caplog.records
    assert record.getMessage() == (
        "running without CUDA graphs, because 'double' cannot be recorded: "
        "operation not permitted when stream is capturing"
    )
    assert double.marks == 3 * ["inside"]


def test_a_failure_at_a_later_shape_ends_all_recordings(caplog: pytest.LogCaptureFixture) -> None:
    recorder, double = FakeRecorder(), Doubling()

    def only_once(function):
        if recorder.recorded:
            raise RuntimeError("out of memory")
        return recorder(function)

    runner = GraphRunner(only_once)
    assert [double.run(runner, 1), double.run(runner, 1, 2), double.run(runner, 3)] == [[2], [2, 4], [6]]
    assert runner.recordings == 0
    assert double.marks == ["double", "inside", "inside"]
    assert "out of memory" in caplog.text
