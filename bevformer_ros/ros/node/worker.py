"""Two threads that hand one item on: while one works on it, the other prepares the next."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")


class PipelinedWorker(Generic[Item, Prepared]):
    """Calls work(prepare(item)), each in a thread of its own from start() on, always preparing the newest item.

    One prepared item waits for the work at most: nothing is prepared in vain, and an item that still waits to be
    prepared when a newer one comes is superseded. prepare gives None for an item that it has dropped. Neither may
    raise: an exception ends the thread. superseded is called in the thread of put().
    """

    def __init__(
        self,
        prepare: Callable[[Item], Prepared | None],
        work: Callable[[Prepared], None],
        superseded: Callable[[Item], None],
    ) -> None:
        self._prepare, self._work, self._superseded = prepare, work, superseded
        self._waiting: Item | None = None  # to be prepared
        self._next: Item | None = None  # being prepared, or prepared
        self._prepared: Prepared | None = None
        self._stopping = False
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=target, name=f"detector {name}", daemon=True)
            for target, name in ((self._prepare_all, "preparation"), (self._work_on_all, "worker"))
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def put(self, item: Item) -> None:
        with self._changed:
            replaced, self._waiting = self._waiting, item
            self._changed.notify_all()
        if replaced is not None:
            self._superseded(replaced)

    def stop(self, timeout_s: float | None = None) -> bool:
        """Begin nothing more; whether the current work was finished within the timeout (None: wait for it)."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        give_up = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads:
            if thread.is_alive():
                thread.join(None if give_up is None else max(0.0, give_up - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    @property
    def not_begun(self) -> list[Item]:
        """After stop(): the items that were put and not worked on."""
        return [item for item in (self._next, self._waiting) if item is not None]

    def _prepare_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or (self._waiting is not None and self._prepared is None))
                if self._stopping:
                    return
                item, self._waiting = self._waiting, None
                self._next = item
            assert item is not None
            prepared = self._prepare(item)
            with self._changed:
                self._prepared = prepared
                if prepared is None:
                    self._next = None
                self._changed.notify_all()

    def _work_on_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._prepared is not None)
                if self._stopping:
                    return
                prepared, self._prepared, self._next = self._prepared, None, None
                self._changed.notify_all()
            assert prepared is not None
            self._work(prepared)
