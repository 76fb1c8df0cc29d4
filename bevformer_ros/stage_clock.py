"""Time by stage: what runs in stages is given a Mark, and says with it where each of them ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

import torch

Mark = Callable[[str], None]  # told the name of the stage that ends here


def unmarked(_stage: str) -> None:
    """A Mark for where nobody measures, or nobody can: inside of a CUDA graph."""


class StageClock:
    """Milliseconds per stage, each from the end of the one before; the first from the making of the clock.

    On a GPU by events on its current stream, so that nothing waits before latencies_ms.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        """device: None for the host."""
        on_gpu = device is not None and device.type == "cuda"
        self._stream = torch.cuda.current_stream(device) if on_gpu else None
        self._stages: list[str] = []
        self._times: list[float] = []
        self._events: list[torch.cuda.Event] = []
        self.mark("start")

    def mark(self, stage: str) -> None:
        """The stage ends here."""
        self._stages.append(stage)
        if self._stream is not None:
            self._events.append(torch.cuda.Event(enable_timing=True))
            self._events[-1].record(self._stream)
        else:
            self._times.append(1000 * time.perf_counter())

    def latencies_ms(self) -> dict[str, float]:
        """By stage, in the order of the marks."""
        if self._stream is not None:
            self._events[-1].synchronize()
            spans = [before.elapsed_time(after) for before, after in pairwise(self._events)]
        else:
            spans = [after - before for before, after in pairwise(self._times)]
        return dict(zip(self._stages[1:], spans, strict=True))
