"""One thread that always works on the newest item."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class LatestWorker(Generic[Item]):
    """Calls work(item) in its own thread; an item that still waits when a newer one comes is superseded.

    work must not raise: an exception ends the thread. superseded is called in the thread of put().
    """

    def __init__(self, work: Callable[[Item], None], superseded: Callable[[Item], None]) -> None:
        self._work = work
        self._superseded = superseded
        self._waiting: Item | None = None
        self._stopping = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="detector worker", daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        with self._changed:
            replaced, self._waiting = self._waiting, item
            self._changed.notify()
        if replaced is not None:
            self._superseded(replaced)

    def stop(self, timeout_s: float | None = None) -> bool:
        """Begin nothing more; whether the current item was finished within the timeout (None: wait for it)."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def waiting(self) -> Item | None:
        """The item that was not begun."""
        return self._waiting

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._waiting is not None)
                if self._stopping:
                    return
                item, self._waiting = self._waiting, None
            assert item is not None
            self._work(item)
