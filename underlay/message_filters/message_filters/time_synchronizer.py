"""Synchronizers: messages of several filters whose stamps are equal, or nearly so."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from typing import Any

from rclpy.clock import ROSClock
from rclpy.duration import Duration
from rclpy.logging import get_logger

from message_filters.simple_filter import SimpleFilter


class TimeSynchronizer(SimpleFilter):
    """Signals one message of each filter in `fs` as soon as all of one stamp are there, then forgets older ones.

    Each filter's queue keeps the `queue_size` messages of the newest stamps; of two with the same stamp, the later.
    Callbacks run under the synchronizer's lock: they must not feed a message back into it.
    """

    def __init__(self, fs: Sequence[SimpleFilter], queue_size: int) -> None:
        super().__init__()
        self.queue_size = queue_size
        self.lock = threading.Lock()
        self.connectInput(fs)

    def connectInput(self, fs: Sequence[SimpleFilter]) -> None:  # noqa: N802
        self.queues: list[dict[int, Any]] = [{} for _ in fs]
        self.input_connections = [
            input_filter.registerCallback(self.add, queue, index)
            for index, (input_filter, queue) in enumerate(zip(fs, self.queues, strict=True))
        ]

    def add(self, message: Any, queue: dict[int, Any], queue_index: int) -> None:
        stamp = _stamp(message)
        if stamp is None:
            raise ValueError(f"a {type(message).__name__} has no header.stamp to synchronize by")
        with self.lock:
            self._enqueue(message, stamp, queue)
            if all(stamp in queue for queue in self.queues):
                messages = [queue.pop(stamp) for queue in self.queues]
                for queue in self.queues:
                    for older in [other for other in queue if other < stamp]:
                        del queue[older]
                self.signalMessage(*messages)

    def _enqueue(self, message: Any, stamp: int, queue: dict[int, Any]) -> None:
        queue[stamp] = message
        while len(queue) > self.queue_size:
            del queue[min(queue)]


class ApproximateTimeSynchronizer(TimeSynchronizer):
    """Signals messages whose stamps all lie less than `slop` seconds apart, those nearest to the newly come one.

    Messages without a header are ignored with a warning, or stamped on arrival if `allow_headerless`; with
    `sync_arrival_time` all are. Upstream's comparison is strict: a slop of 0 never matches. Messages that were passed
    over stay queued.
    """

    def __init__(
        self,
        fs: Sequence[SimpleFilter],
        queue_size: int,
        slop: float,
        *,
        allow_headerless: bool = False,
        sync_arrival_time: bool = False,
    ) -> None:
        super().__init__(fs, queue_size)
        self.slop = Duration(seconds=slop)
        self.allow_headerless = allow_headerless
        self.sync_arrival_time = sync_arrival_time

    def add(self, message: Any, queue: dict[int, Any], queue_index: int) -> None:
        stamp = None if self.sync_arrival_time else _stamp(message)
        if stamp is None:
            if not (self.allow_headerless or self.sync_arrival_time):
                get_logger("message_filters_approx").warning(
                    f"a {type(message).__name__} without header.stamp is ignored; allow_headerless would let it in"
                )
                return
            stamp = ROSClock().now().nanoseconds
        with self.lock:
            self._enqueue(message, stamp, queue)
            stamps = self._match(stamp, queue_index)
            if stamps is not None:
                self.signalMessage(*[queue.pop(match) for queue, match in zip(self.queues, stamps, strict=True)])

    def _match(self, stamp: int, queue_index: int) -> tuple[int, ...] | None:
        """The first combination of stamps, one per queue, within the slop: nearest to `stamp` first."""
        slop = self.slop.nanoseconds
        candidates = [
            sorted((s for s in queue if abs(s - stamp) < slop), key=lambda s: abs(s - stamp)) for queue in self.queues
        ]
        candidates[queue_index] = [stamp] if stamp in self.queues[queue_index] else []
        for stamps in itertools.product(*candidates):
            if max(stamps) - min(stamps) < slop:
                return stamps
        return None


def _stamp(message: Any) -> int | None:
    """Nanoseconds of header.stamp, be it a message or an rclpy Time; None if there is none."""
    stamp = getattr(getattr(message, "header", None), "stamp", None)
    if stamp is None:
        return None
    return stamp.nanoseconds if hasattr(stamp, "nanoseconds") else stamp.sec * 10**9 + stamp.nanosec
