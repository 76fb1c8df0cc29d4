"""Two streams of a GPU, one on which frames are prepared and one for the network; on the CPU neither is needed.

docs/performance.md has the table of who waits for whom.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch


def event_now(device: torch.device) -> torch.cuda.Event | None:
    """It passes when all that was given to the current stream of a GPU is done; None for the CPU."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event


class PreparationStream:
    """Memory of a frame belongs to this stream: freed, it would go to the next frame at once, though the network's
    stream may still read it. So the network's thread keeps every frame until it was read.

    That is told by events and not by Tensor.record_stream, whose memory torch cannot free on a GPU that is lost: it
    would abort the process before anybody could say why.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._being_read: deque[tuple[torch.cuda.Event, object]] = deque()

    def preparing(self) -> AbstractContextManager[object]:
        """In it, this is the thread's current stream."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    @contextmanager
    def reading(self, frame: object) -> Iterator[None]:
        """In it, all that reads the frame is given to the current stream. Frames that were read are let go."""
        while self._being_read and self._being_read[0][0].query():
            self._being_read.popleft()
        try:
            yield
        finally:
            event = event_now(self._device)
            if event is not None:
                self._being_read.append((event, frame))
