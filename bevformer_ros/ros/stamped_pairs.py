"""Two topics about the same boxes, joined by their stamps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bevformer_ros.ros.conversions import stamp_to_ns

_MOST_WAITING = 10


class StampedPairs:
    """Calls back with two messages of one stamp; of each kind the last ten that came wait for their counterpart.

    message_filters.TimeSynchronizer keeps the newest stamps instead, and refuses all others after a jump back.
    """

    def __init__(self, callback: Callable[[Any, Any], None]) -> None:
        self._callback = callback
        self._firsts: dict[int, Any] = {}
        self._seconds: dict[int, Any] = {}

    def add_first(self, message: Any) -> None:
        stamp_ns = stamp_to_ns(message.header.stamp)
        if stamp_ns in self._seconds:
            self._callback(message, self._seconds.pop(stamp_ns))
        else:
            _wait(self._firsts, stamp_ns, message)

    def add_second(self, message: Any) -> None:
        stamp_ns = stamp_to_ns(message.header.stamp)
        if stamp_ns in self._firsts:
            self._callback(self._firsts.pop(stamp_ns), message)
        else:
            _wait(self._seconds, stamp_ns, message)


def _wait(waiting: dict[int, Any], stamp_ns: int, message: Any) -> None:
    waiting[stamp_ns] = message
    if len(waiting) > _MOST_WAITING:
        del waiting[next(iter(waiting))]
