"""Recording and replaying, with a recorder that stands in for CUDA; and that the forward pass could be recorded."""

from __future__ import annotations

import contextlib
import logging
from typing import NamedTuple

import pytest
import torch
from fake_recorder import FakeRecorder
from torch import Tensor

from bevformer_ros.inference.graphs import CudaGraphs, GraphRunner
from bevformer_ros.stage_clock import Mark, unmarked


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


class Pair(NamedTuple):
    number: Tensor
    other: Tensor | None


def test_nested_arguments_are_fed_and_handed_back_as_they_are() -> None:
    def double(pair: Pair, numbers: tuple[Tensor, ...], mark: Mark) -> Pair:
        number = 2 * pair.number + sum(numbers)
        return Pair(number, None if pair.other is None else -pair.other)

    recorder = FakeRecorder()
    runner = GraphRunner(recorder)
    one, ten = torch.tensor([1.0]), torch.tensor([10.0])
    for _ in range(2):
        for pair, numbers, expected in (
            (Pair(one, None), (ten, ten), (22.0, None)),
            (Pair(ten, one), (one, one), (22.0, -1.0)),
            (Pair(ten, one), (ten,), (30.0, -1.0)),
        ):
            result = runner("double", double, unmarked, pair, numbers)
            assert isinstance(result, Pair)
            assert (result.number.item(), result.other and result.other.item()) == expected
    assert recorder.recorded == 3


def test_outputs_stay_where_they_are() -> None:
    runner, double = GraphRunner(FakeRecorder()), Doubling()
    first, second = (runner("double", double, double.marks.append, torch.tensor([value])) for value in (1.0, 5.0))
    assert first[0].data_ptr() == second[0].data_ptr()


def test_what_cannot_be_recorded_runs_eagerly_and_the_log_says_once_why(caplog: pytest.LogCaptureFixture) -> None:
    class Refusing(FakeRecorder):
        def __call__(self, function):
            raise RuntimeError("operation not permitted when stream is capturing\nand more lines")

    runner, double = GraphRunner(Refusing()), Doubling()
    with caplog.at_level(logging.WARNING):
        assert [double.run(runner, 1), double.run(runner, 2), double.run(runner, 1, 2)] == [[2], [4], [2, 4]]
    (record,) = caplog.records
    assert record.getMessage() == (
        "running without CUDA graphs, because 'double' cannot be recorded: "
        "operation not permitted when stream is capturing"
    )
    assert double.marks == 3 * ["inside"]


def test_recordings_can_be_given_up_for_their_memory() -> None:
    runner, double = GraphRunner(FakeRecorder()), Doubling()
    assert double.run(runner, 1) == [2] and runner.recordings == 1
    assert [runner.stop_recording(), runner.stop_recording()] == [True, False]
    assert runner.recordings == 0 and not runner.records
    assert double.run(runner, 1) == [2]
    assert double.marks[-1] == "inside"


class CompilationError(Exception):
    """Compilers have errors of their own, which are no RuntimeError."""


@pytest.mark.parametrize("error", [CompilationError("at 3:5"), torch.OutOfMemoryError("CUDA out of memory"), OSError()])
def test_no_error_of_a_compiler_or_allocator_gets_through(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    recorder, double = FakeRecorder(), Doubling()
    released = []

    class Refusing:
        def __call__(self, function):
            if recorder.recorded:
                raise error
            return recorder(function)

        def release(self):
            released.append(runner.recordings)

    runner = GraphRunner(Refusing())
    assert runner.records
    assert [double.run(runner, 1), double.run(runner, 1, 2), double.run(runner, 3)] == [[2], [2, 4], [6]]
    assert released == [0]  # once, after the recordings, which hold the memory
    assert not runner.records
    assert len(caplog.records) == 1
    assert error.__traceback__ is None  # whose frames would hold the tensors of the attempt


def test_a_failure_at_a_later_shape_ends_all_recordings(caplog: pytest.LogCaptureFixture) -> None:
    class OnlyOnce(FakeRecorder):
        def __call__(self, function):
            if self.recorded:
                raise RuntimeError("out of memory")
            return super().__call__(function)

    runner, double = GraphRunner(OnlyOnce()), Doubling()
    assert [double.run(runner, 1), double.run(runner, 1, 2), double.run(runner, 3)] == [[2], [2, 4], [6]]
    assert runner.recordings == 0
    assert double.marks == ["double", "inside", "inside"]
    assert "out of memory" in caplog.text


class FakeCuda:
    """Streams and graphs of torch.cuda that only take notes. Like the real one, a capture that fails in its last step
    leaves the thread on its stream."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.notes: list[tuple[object, ...]] = []
        self.current: object = "main"
        self.fail = False
        cuda = self

        class Stream:
            count = 0

            def __init__(self) -> None:
                Stream.count += 1
                self.name = f"recording {Stream.count}"

            def wait_stream(self, other: object) -> None:
                cuda.notes.append((self.name, "waits for", getattr(other, "name", other)))

        class Main(Stream):
            def __init__(self) -> None:
                self.name = "main"

        @contextlib.contextmanager
        def stream(chosen: Stream):
            before, cuda.current = cuda.current, chosen
            yield
            cuda.current = before

        class Graph:
            def replay(self) -> None:
                cuda.notes.append(("replay",))

        @contextlib.contextmanager
        def graph(_graph: Graph, pool: object, stream: Stream, capture_error_mode: str):
            before, cuda.current = cuda.current, stream
            cuda.notes.append(("capture", pool, stream.name, capture_error_mode))
            yield
            if cuda.fail:
                raise RuntimeError("operation failed due to a previous error during capture")
            cuda.current = before

        self.current = Main()
        fakes = {
            "Stream": Stream,
            "CUDAGraph": Graph,
            "stream": stream,
            "graph": graph,
            "device": lambda _device: contextlib.nullcontext(),
            "graph_pool_handle": lambda: "pool",
            "current_stream": lambda: cuda.current,
            "set_stream": lambda chosen: setattr(cuda, "current", chosen),
            "empty_cache": lambda: cuda.notes.append(("empty cache",)),
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)


def test_all_recordings_share_one_pool_and_one_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch)
    record = CudaGraphs(torch.device("cuda"))
    runs: list[object] = []

    def function() -> str:
        runs.append(getattr(cuda.current, "name", None))
        return "outputs"

    for _ in range(3):
        replay, outputs = record(function)
        assert outputs == "outputs"
    replay()
    assert set(runs) == {"recording 1"}  # warm-ups too: their memory is that of the recording
    assert [note for note in cuda.notes if note[0] == "capture"] == 3 * [
        ("capture", "pool", "recording 1", "thread_local")
    ]
    assert cuda.notes[:2] == [("recording 1", "waits for", "main"), ("main", "waits for", "recording 1")]
    assert cuda.notes[-1] == ("replay",)


@pytest.mark.parametrize("where", ["in the function", "at its end"])
def test_a_failed_recording_leaves_the_thread_on_its_own_stream(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch)
    record = CudaGraphs(torch.device("cuda"))
    before, cuda.fail = cuda.current, where == "at its end"

    def function() -> None:
        if where == "in the function":
            raise ValueError("planted")

    with pytest.raises((ValueError, RuntimeError)):
        record(function)
    assert cuda.current is before
    record.release()
    assert cuda.notes[-1] == ("empty cache",)
