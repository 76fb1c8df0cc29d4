"""Memory of the process and of the device. Needs no torch: where nothing has loaded it, none of its memory is used."""

from __future__ import annotations

import ctypes
import gc
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # names of malloc.h, without M_
_NEVER = -1
_GROWTH_BYTES = 64 * 2**20


def keep_freed_memory() -> None:
    """Let this process reuse the memory of large tensors that are gone; it then stays as big as it ever was.

    By default glibc returns large blocks to the kernel at once and gets them back page by page, each zeroed again,
    which takes about half of the time of a full-size forward pass. Does nothing where there is no glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, _NEVER)
        mallopt(_TOP_PAD, _GROWTH_BYTES)


def release_memory() -> None:
    """Give what a network that is gone had taken back to the device, now and not when the collector next runs."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def out_of_memory_errors() -> tuple[type[RuntimeError], ...]:
    """What is raised where the device's memory does not suffice."""
    torch = sys.modules.get("torch")
    return () if torch is None else (torch.cuda.OutOfMemoryError,)
