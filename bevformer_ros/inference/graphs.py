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
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from bevformer_ros.stage_clock import Mark, unmarked

LOGGER = logging.getLogger(__name__)

_WARM_UPS = 3  # kernels are compiled, algorithms chosen and workspaces allocated in the first runs


class Recording(NamedTuple):
    """replay() computes outputs from inputs, all of which stay where they are. inputs: the tensors in the arguments."""

    inputs: list[Tensor]
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
            except RuntimeError as error:
                reason = next(iter(str(error).splitlines()), type(error).__name__)
                LOGGER.warning("running without CUDA graphs, because %r cannot be recorded: %s", name, reason)
                self._record = None
                self._recordings.clear()
        return self._recordings.get(key)


def _tensors(leaves: list[Tensor | None]) -> list[Tensor]:
    return [leaf for leaf in leaves if leaf is not None]
