"""That each fused operator means what torch's own do, and gives way to them where a machine cannot run it."""

from __future__ import annotations

import logging
import sys

import pytest
import torch
from torch import Tensor, nn

from bevformer_ros.model import fused_operators
from bevformer_ros.model.fused_operators import (
    ADD_NORM,
    CONVOLVE,
    add_norm,
    convolve_relu,
    fused_or_plain,
    fuses,
    linear_relu,
)

META = torch.device("meta")


@pytest.fixture(autouse=True)
def nothing_failed_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_operators, "_failed", set())


@torch.no_grad()
def test_fuses_where_a_gpu_is_or_is_counted_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not fuses(torch.ones(1), CONVOLVE)
    assert fuses(torch.ones(1, device=META), CONVOLVE)
    with torch.enable_grad():
        assert not fuses(torch.ones(1, device=META), CONVOLVE)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "is_autocast_enabled", lambda _device: True)  # on a GPU, which torch asks for
        assert not fuses(torch.ones(1, device=META), CONVOLVE)


class OutOfResources(Exception):  # noqa: N818, as Triton has it
    """No RuntimeError."""


@pytest.mark.parametrize(
    "error",
    [
        OutOfResources("out of resource: shared memory, Required: 300000, Hardware limit: 101376"),
        RuntimeError("Failed to find C compiler. Please specify via CC environment variable."),
        FileNotFoundError(2, "No such file or directory: 'ptxas'"),
        ModuleNotFoundError("No module named 'triton'"),
        TypeError("'constexpr' object is not subscriptable"),
        RuntimeError("GET was unable to find an engine to execute this computation\nand more"),
    ],
)
def test_what_cannot_be_fused_is_computed_otherwise_and_the_log_says_once_why(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    def fused() -> Tensor:
        calls.append("fused")
        raise error

    results = [fused_or_plain(ADD_NORM, fused, lambda: torch.ones(2)) for _ in range(3)]
    assert [result.tolist() for result in results] == 3 * [[1.0, 1.0]]
    assert calls == ["fused"]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(f"add_norm is not fused on this machine: {type(error).__name__}: ")
    assert "\n" not in record.getMessage()
    assert not fuses(torch.ones(1, device=META), ADD_NORM)


def test_a_lack_of_memory_is_no_reason_to_need_more() -> None:
    def fused() -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    with pytest.raises(torch.OutOfMemoryError):
        fused_or_plain(CONVOLVE, fused, lambda: torch.ones(1))
    assert fused_or_plain(CONVOLVE, lambda: torch.zeros(1), lambda: torch.ones(1)) == 0


@torch.no_grad()
@pytest.mark.parametrize("shortcut", [False, True])
def test_convolve_relu(shortcut: bool) -> None:
    convolution = nn.Conv2d(3, 5, 3, stride=2, padding=1)
    x, other = torch.randn(2, 3, 8, 6), torch.randn(2, 5, 4, 3)
    expected = (convolution(x) + (other if shortcut else 0)).relu()
    torch.testing.assert_close(convolve_relu(convolution, x, other if shortcut else None), expected)
    shape = convolve_relu(convolution.to(META), x.to(META), other.to(META) if shortcut else None).shape
    assert shape == expected.shape


@torch.no_grad()
def test_add_norm_and_linear_relu() -> None:
    norm, linear = nn.LayerNorm(6), nn.Linear(6, 4)
    x, residual = torch.randn(2, 3, 6), torch.randn(2, 3, 6)
    torch.testing.assert_close(add_norm(norm, x, residual), norm(x + residual))
    torch.testing.assert_close(linear_relu(linear, x), linear(x).relu())
    assert add_norm(norm.to(META), x.to(META), residual.to(META)).shape == x.shape
    assert linear_relu(linear.to(META), x.to(META)).shape == (2, 3, 4)


@torch.no_grad()
@pytest.mark.parametrize(("rows", "channels"), [((0,), 8), ((1,), 1), ((2, 5), 48), ((70,), 256)])
def test_the_kernel_of_add_norm(rows: tuple[int, ...], channels: int) -> None:
    pytest.importorskip("triton")
    from bevformer_ros.model.triton_norm import add_norm_in_one

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    norm = nn.LayerNorm(channels)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    norm.to(device)
    x, residual = torch.randn(*rows, channels, device=device), torch.randn(*rows, channels, device=device)
    actual = add_norm_in_one(x, residual, norm.weight, norm.bias, norm.eps)
    torch.testing.assert_close(actual, norm(x + residual), atol=1e-5, rtol=1e-4)
    assert add_norm_in_one(x.bfloat16(), residual.bfloat16(), norm.weight, norm.bias, norm.eps).dtype == torch.bfloat16


def test_without_triton_the_log_says_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "bevformer_ros.model.triton_norm", None)

    def fused() -> Tensor:
        from bevformer_ros.model.triton_norm import add_norm_in_one

        return add_norm_in_one(torch.ones(1, 1), torch.ones(1, 1), torch.ones(1), torch.ones(1), 1e-5)

    assert fused_or_plain(ADD_NORM, fused, lambda: torch.ones(1)) == 1
    assert "import of bevformer_ros.model.triton_norm halted" in caplog.text
