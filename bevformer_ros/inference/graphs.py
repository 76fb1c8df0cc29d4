"""Functions of tensors replayed as CUDA graphs: one launch instead of thousands, which cost more than the work itself.

Such a function reads its inputs and tensors that stay where they are (weights, the ring of the history), asks the host
for nothing, and makes the same operations every time for the same input shapes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from bevformer_ros.stage_clock import Mark, unmarked

LOGGER = logging.getLogger(__name__)

_WARM_UPS = 3  # kernels are compiled, algorithms chosen and workspaces allocated in the first runs


class Recording(NamedTuple):
    """replay() computes outputs from inputs, all of which stay where they are. inputs: the tensors in the arguments."""

    inputs: list[Tensor]
    replay: Callable[[], None]
    outputs: Any


class Recorder(Protocol):
    def __call__(self, function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        """Run a function a few times, then record it: (replay, outputs)."""

    def release(self) -> None:
        """All recordings are gone."""


class CudaGraphs:
    """Records CUDA graphs that share their memory, since they run one after another.

    All are recorded on one stream: blocks of the memory pool belong to the stream on which they were first used. The
    graphs run on whatever stream is current.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        with torch.cuda.device(device):
            self._pool = torch.cuda.graph_pool_handle()
            self._stream = torch.cuda.Stream()  # recording is not possible on the default one

    def __call__(self, function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        with torch.cuda.device(self._device):
            before = torch.cuda.current_stream()
            try:
                return self._recorded(function, before)
            finally:  # a recording that fails leaves the thread on the stream of the recording
                torch.cuda.set_stream(before)

    def _recorded(self, function: Callable[[], Any], before: torch.cuda.Stream) -> tuple[Callable[[], None], Any]:
        self._stream.wait_stream(before)
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UPS):
                function()
        before.wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        # thread_local: other threads may decode images or free pinned memory meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            outputs = function()
        return graph.replay, outputs

    def release(self) -> None:
        """Give back what recordings that are gone had taken."""
        with torch.cuda.device(self._device):
            torch.cuda.empty_cache()


class GraphRunner:
    """Runs functions eagerly, or with a recorder as graphs, recorded when a combination of input shapes first comes.

    What cannot be recorded runs eagerly from then on, like everything that was never recorded; the log says once why.
    The outputs of a graph are overwritten when it runs again. Recordings hold the addresses of weights: make a new
    runner for new ones.
    """

    def __init__(self, record: Recorder | None) -> None:
        self._record = record
        self._recordings: dict[tuple[Any, ...], Recording] = {}

    @property
    def recordings(self) -> int:
        return len(self._recordings)

    @property
    def records(self) -> bool:
        """Whether anything still to come is recorded."""
        return self._record is not None

    def stop_recording(self) -> bool:
        """Give back the memory of all recordings and run everything eagerly from now on; whether that changes
        anything."""
        if self._record is None:
            return False
        self._recordings.clear()
        self._record.release()
        self._record = None
        return True

    def __call__(self, name: str, function: Callable[..., Any], mark: Mark, *arguments: Any) -> Any:
        """function(*arguments, mark=mark). Eagerly it marks its own stages, as a graph it is one stage of that name.

        arguments: tensors, named tuples, tuples and lists of them, and None.
        """
        leaves, structure = tree_flatten(arguments)
        recording = self._recording(name, function, leaves, structure)
        if recording is None:
            return function(*arguments, mark=mark)
        for static, value in zip(recording.inputs, _tensors(leaves), strict=True):
            static.copy_(value)
        recording.replay()
        mark(name)
        return recording.outputs

    def _recording(
        self, name: str, function: Callable[..., Any], leaves: list[Tensor | None], structure: TreeSpec
    ) -> Recording | None:
        key = (name, structure, *((leaf.shape, leaf.dtype) if leaf is not None else None for leaf in leaves))
        if self._record is not None and key not in self._recordings:
            statics = [None if leaf is None else leaf.clone() for leaf in leaves]
            try:
                replay, outputs = self._record(lambda: function(*tree_unflatten(statics, structure), mark=unmarked))
                self._recordings[key] = Recording(_tensors(statics), replay, outputs)
            except Exception as error:  # of drivers, allocators and compilers; what is wrong eagerly too, fails there
                reason = next(iter(str(error).splitlines()), type(error).__name__)
                LOGGER.warning("running without CUDA graphs, because %r cannot be recorded: %s", name, reason)
                error.__traceback__ = None  # its frames hold tensors, for whose memory what runs eagerly may have need
                self.stop_recording()
        return self._recordings.get(key)


def _tensors(leaves: list[Tensor | None]) -> list[Tensor]:
    return [leaf for leaf in leaves if leaf is not None]
