"""Time by stage where the work runs on a GPU."""

from __future__ import annotations

from itertools import pairwise

import torch

from bevformer_ros.stage_clock import StageClock


class GpuClock(StageClock):
    """By events on the GPU's stream that is current at each mark, so that nothing waits before latencies_ms."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._events: list[torch.cuda.Event] = []
        super().__init__()

    def mark(self, stage: str) -> None:
        self._stages.append(stage)
        self._events.append(torch.cuda.Event(enable_timing=True))
        self._events[-1].record(torch.cuda.current_stream(self._device))

    def latencies_ms(self) -> dict[str, float]:
        self._events[-1].synchronize()
        spans = (before.elapsed_time(after) for before, after in pairwise(self._events))
        return dict(zip(self._stages[1:], spans, strict=True))


def clock_on(device: torch.device) -> StageClock:
    """One that starts now and measures what runs there."""
    return GpuClock(device) if device.type == "cuda" else StageClock()
