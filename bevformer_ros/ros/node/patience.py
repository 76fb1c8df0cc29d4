"""Waiting for data that is late, in a worker thread, within a limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from bevformer_ros.types import SECOND_NS

Result = TypeVar("Result")

_POLL_SECONDS = 0.005
# Simulated time may stand still (a paused or finished bag): then wall time ends the wait.
_GRACE_SECONDS = 1.0


class Waiting(Protocol):
    """A way to wait for what is late."""

    def retry(self, attempt: Callable[[], Result], late: type[Exception]) -> Result:
        """attempt()'s result; while it raises `late`, tries again up to a limit and then lets the error pass."""
        ...


@dataclass(frozen=True)
class Patience:
    """Waiting for other threads. limit_ns: longest wait on the clock now_ns. stopped: set it to end every wait."""

    limit_ns: int
    now_ns: Callable[[], int]
    stopped: threading.Event = field(default_factory=threading.Event)

    def retry(self, attempt: Callable[[], Result], late: type[Exception]) -> Result:
        """attempt()'s result; while it raises `late`, tries again up to the limit and then lets the error pass.

        A clock that goes back ends the wait too: what was asked for belongs to a time that is gone.
        """
        started, give_up = self.now_ns(), time.monotonic() + self.limit_ns / SECOND_NS + _GRACE_SECONDS
        while True:
            try:
                return attempt()
            except late:
                waited = self.now_ns() - started
                if not 0 <= waited < self.limit_ns or time.monotonic() >= give_up or self.stopped.wait(_POLL_SECONDS):
                    raise
