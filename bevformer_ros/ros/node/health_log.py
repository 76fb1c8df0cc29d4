"""The log's share of the health: a line when a problem begins, one now and then while it lasts, one when it ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bevformer_ros.ros.node.camera_health import Level, Problem

REPEAT_S = 10.0
_OVER_AFTER_S = 1.0  # a problem that comes and goes is one


@dataclass
class _Entry:
    problem: Problem
    begun_s: float
    seen_s: float
    told_s: float


class HealthLog:
    """Not thread-safe."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], _Entry] = {}

    def lines(self, problems: Sequence[Problem], now_s: float) -> Iterator[tuple[Level, str]]:
        """What to log now; OK for good news."""
        for problem in problems:
            entry = self._entries.get((problem.source, problem.code))
            if entry is None:
                self._entries[problem.source, problem.code] = _Entry(problem, now_s, now_s, now_s)
                yield problem.level, str(problem)
                continue
            entry.problem, entry.seen_s = problem, now_s
            if now_s - entry.told_s >= REPEAT_S:
                entry.told_s = now_s
                yield problem.level, f"{problem} (for {now_s - entry.begun_s:.0f} s)"
        for key, entry in list(self._entries.items()):
            if now_s - entry.seen_s >= _OVER_AFTER_S:
                del self._entries[key]
                source, code = key
                if not source or all(other != source for other, _ in self._entries):  # no other cause in its place
                    yield Level.OK, f"{source or 'detector'}: {code} is over after {entry.seen_s - entry.begun_s:.1f} s"
