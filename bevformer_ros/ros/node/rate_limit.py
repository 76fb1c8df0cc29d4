"""Fewer sets a second than the cameras give."""

from __future__ import annotations

from bevformer_ros.types import SECOND_NS


class RateLimit:
    """Admits so many stamps a second on average. What comes late does not make the next one wait longer."""

    def __init__(self, rate_hz: float) -> None:
        """rate_hz: 0 admits all."""
        self._period_ns = round(SECOND_NS / rate_hz) if rate_hz > 0 else 0
        self._due_ns: int | None = None

    def admits(self, stamp_ns: int) -> bool:
        if self._due_ns is None or stamp_ns < self._due_ns - 2 * self._period_ns:  # the first, or time went back
            self._due_ns = stamp_ns
        if stamp_ns < self._due_ns:
            return False
        self._due_ns = max(self._due_ns + self._period_ns, stamp_ns + self._period_ns // 2)
        return True
