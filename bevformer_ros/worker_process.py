"""What a process that works for another one does at its start, so that it ends with it and never speaks up alone."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from types import TracebackType

_PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def follow_parent(_: int = 0) -> None:
    """For the first lines of a worker: end at once when the process that started it does, even if that was killed."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = parent_process()
    if parent is not None and parent.pid != os.getppid():  # it ended before it could be followed
        os._exit(1)
    sys.excepthook = _report


def _report(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """The thread of multiprocessing that hands over tensors comes here when an interrupted parent hangs up, before its
    first byte or in the middle; everything else that goes wrong in a worker is told to the parent."""
    if not issubclass(kind, (ConnectionError, EOFError)):
        sys.__excepthook__(kind, error, traceback)


@contextmanager
def starting_workers() -> Iterator[None]:
    """Processes started meanwhile never hear Ctrl-C, which a terminal sends to all: their parent ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
