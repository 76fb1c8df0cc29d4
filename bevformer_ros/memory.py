"""Memory of a process that runs the network on the CPU."""

from __future__ import annotations

import ctypes
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
