from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pretended_gpu import PretendedGpu
from torch import Tensor

from bevformer_ros.inference.packing import Download, pack

# Odd sizes, so that what follows lies at any address.
TENSORS = (
    torch.tensor([[True, False, True]]),
    torch.tensor([[0.1, float("nan"), -0.0], [float("inf"), 1e-45, 3.0]]),
    torch.tensor([[2**24 + 1, -1], [2**53 + 1, 0]]),
    torch.arange(12.0).reshape(3, 4)[:, 1:3],
    torch.zeros(1, 0, 3),
    torch.tensor(False),
)


def assert_same(arrays: list[np.ndarray], tensors: tuple[Tensor, ...]) -> None:
    for array, tensor in zip(arrays, tensors, strict=True):
        expected = tensor.numpy()
        assert (array.shape, array.dtype) == (expected.shape, expected.dtype)
        assert array.tobytes() == expected.tobytes()  # NaN, signs and large numbers too


def test_everything_comes_back_to_the_bit() -> None:
    assert_same(Download(torch.device("cpu"))(pack(TENSORS)), TENSORS)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_from_a_real_gpu() -> None:
    download = Download(torch.device("cuda"))
    for _ in range(2):
        assert_same(download(pack([tensor.cuda() for tensor in TENSORS])), TENSORS)


def test_from_a_gpu_it_is_one_copy_into_pinned_memory_and_one_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[str] = []
    with PretendedGpu(monkeypatch) as gpu:
        stream = SimpleNamespace(synchronize=lambda: waits.append("wait"))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
        download = Download(torch.device("cuda"))
        first = download(pack(TENSORS))
        second = download(pack([torch.zeros_like(tensor) for tensor in TENSORS]))
    assert_same(first, TENSORS)  # not overwritten by the next frame
    assert not any(array.any() for array in second)
    assert (gpu.pinned, len(waits)) == (1, 2)
