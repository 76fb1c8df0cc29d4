"""The protocol of a filter: callbacks are registered with it, and it signals messages to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class SimpleFilter:
    def __init__(self) -> None:
        self.callbacks: dict[int, tuple[Callable[..., None], tuple[Any, ...]]] = {}

    def registerCallback(self, callback: Callable[..., None], *arguments: Any) -> int:  # noqa: N802
        """Call `callback(*messages, *arguments)` at each output, in the order of registration."""
        connection = len(self.callbacks)
        self.callbacks[connection] = (callback, arguments)
        return connection

    def signalMessage(self, *messages: Any) -> None:  # noqa: N802
        for callback, arguments in self.callbacks.values():
            callback(*messages, *arguments)
