"""Large tensors get the memory of those before them, not fresh pages from the kernel."""

from __future__ import annotations

import platform
import resource

import pytest
import torch

from bevformer_ros.inference.memory import keep_freed_memory

MEGABYTES = 100


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="changes glibc only")
def test_freed_memory_is_reused() -> None:
    keep_freed_memory()
    keep_freed_memory()
    for _ in range(20):  # until the holes that are left fit
        torch.ones(MEGABYTES * 2**18)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        torch.ones(MEGABYTES * 2**18)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faults < MEGABYTES * 2**20 / 4096, "fewer than the pages of one of the three"
