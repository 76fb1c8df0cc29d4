"""Functions of tensors replayed as CUDA graphs: one launch instead of thousands, which cost more than the work itself.

Such a function reads its inputs and tensors that stay where they are (weights, the ring of the history), asks the host
for nothing, and makes the same operations every time for the same input shapes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

LOGGER = logging.getLogger(__name__)

Mark = Callable[[str], None]  # told that a stage ends here
_WARM_UPS = 3  # kernels are compiled, algorithms chosen and workspaces allocated in the first runs


def unmarked(_stage: str) -> None:
    """A Mark for where nobody measures, or nobody can: inside of a graph."""


class Recording(NamedTuple):
    """replay() computes outputs from inputs, all of which stay where they are."""

    inputs: tuple[Tensor, ...]
    replay: Callable[[], None]
    outputs: Any


# Runs a function a few times, then records it: (replay, outputs).
Record = Callable[[Callable[[], Any]], tuple[Callable[[], None], Any]]


class CudaGraphs:
    """Records CUDA graphs that share their memory, since they run one after another on one stream."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        with torch.cuda.device(self._device):
            return self._recorded(function)

    def _recorded(self, function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        stream = torch.cuda.Stream()  # recording is not possible on the default one
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                function()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # thread_local: other threads may decode images or free pinned memory meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"):
            outputs = function()
        return graph.replay, outputs


class GraphRunner:
    """Runs functions eagerly, or with a recorder as graphs, recorded when a combination of input shapes first comes.

    What cannot be recorded runs eagerly from then on, like everything that was never recorded; the log says once why.
    The outputs of a graph are overwritten when it runs again. Recordings hold the addresses of weights: make a new
    runner for new ones.
    """

    def __init__(self, record: Record | None) -> None:
        self._record = record
        self._recordings: dict[tuple[Any, ...], Recording] = {}

    @property
    def recordings(self) -> int:
        return len(self._recordings)

    def __call__(self, name: str, function: Callable[..., Any], mark: Mark, *inputs: Tensor) -> Any:
        """function(mark, *inputs). Eagerly it marks its own stages, as a graph it is one stage of the given name."""
        recording = self._recording(name, function, inputs)
        if recording is None:
            return function(mark, *inputs)
        for static, value in zip(recording.inputs, inputs, strict=True):
            static.copy_(value)
        recording.replay()
        mark(name)
        return recording.outputs

    def _recording(self, name: str, function: Callable[..., Any], inputs: tuple[Tensor, ...]) -> Recording | None:
        key = (name, *((value.shape, value.dtype) for value in inputs))
        if self._record is not None and key not in self._recordings:
            statics = tuple(value.clone() for value in inputs)
            try:
                replay, outputs = self._record(lambda: function(unmarked, *statics))
                self._recordings[key] = Recording(statics, replay, outputs)
            except RuntimeError as error:
                reason = next(iter(str(error).splitlines()), type(error).__name__)
                LOGGER.warning("running without CUDA graphs, because %r cannot be recorded: %s", name, reason)
                self._record = None
                self._recordings.clear()
        return self._recordings.get(key)
