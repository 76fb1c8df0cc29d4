"""Telling a GPU that is lost from one that is not, with a torch that answers as a driver would."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from bevformer_ros.inference.gpu_loss import why_lost

ILLEGAL = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be reported later"


class Gpu:
    """fail_at: which of "compute" and "wait" raises the error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fail_at, self.error, self.asked = "", RuntimeError(), []
        stream = SimpleNamespace(synchronize=lambda: self._do("wait"))
        monkeypatch.setattr(torch, "ones", lambda size, device: self._do("compute", device) or torch.zeros(size))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)

    def _do(self, step: str, device: str = "") -> None:
        self.asked.append(device or step)
        if step == self.fail_at:
            raise self.error


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    return Gpu(monkeypatch)


def test_the_cpu_is_not_asked(gpu: Gpu) -> None:
    assert why_lost("cpu") == ""
    assert gpu.asked == []


def test_a_gpu_that_computes_is_there(gpu: Gpu) -> None:
    assert why_lost("cuda:1") == ""
    assert gpu.asked == ["cuda:1", "wait"]


@pytest.mark.parametrize("step", ["compute", "wait"])
@pytest.mark.parametrize("kind", [RuntimeError, torch.AcceleratorError])
def test_one_that_answers_with_an_error_is_lost(gpu: Gpu, step: str, kind: type[RuntimeError]) -> None:
    gpu.fail_at, gpu.error = step, kind(ILLEGAL)
    assert why_lost("cuda") == "CUDA error: an illegal memory access was encountered"


def test_one_without_room_is_there(gpu: Gpu) -> None:
    gpu.fail_at, gpu.error = "compute", torch.OutOfMemoryError("CUDA out of memory")
    assert why_lost("cuda") == ""


LOSE_IT = """
import torch
from bevformer_ros.inference.gpu_loss import why_lost
assert why_lost("cuda") == ""
try:
    torch.zeros(2, device="cuda")[torch.tensor([5], device="cuda")].cpu()
except RuntimeError:
    print(why_lost("cuda"), flush=True)
import os
os._exit(0)
"""


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_one_after_an_assertion_in_a_kernel() -> None:
    done = subprocess.run([sys.executable, "-c", LOSE_IT], capture_output=True, text=True, timeout=120)
    assert "device-side assert" in done.stdout, done.stderr
