"""Time by stage: what runs in stages is given a Mark, and says with it where each of them ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

Mark = Callable[[str], None]  # told the name of the stage that ends here


def unmarked(_stage: str) -> None:
    """A Mark for where nobody measures, or nobody can: inside of a CUDA graph."""


class StageClock:
    """Milliseconds per stage, each from the end of the one before; the first from the making of the clock."""

    def __init__(self) -> None:
        self._stages: list[str] = []
        self._times: list[float] = []
        self.mark("start")

    def mark(self, stage: str) -> None:
        """The stage ends here."""
        self._stages.append(stage)
        self._times.append(1000 * time.perf_counter())

    def latencies_ms(self) -> dict[str, float]:
        """By stage, in the order of the marks."""
        spans = (after - before for before, after in pairwise(self._times))
        return dict(zip(self._stages[1:], spans, strict=True))
