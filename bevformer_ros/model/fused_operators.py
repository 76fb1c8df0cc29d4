"""Operators that are one kernel on a GPU where torch has several, for inference; each says what it means in torch.

    if fuses(x, CONVOLVE): ...

They are torch operators with a shape rule, so that the meta device, torch.compile and torch.export know them. Where a
machine cannot compile or run one of them, torch's own take its place, and the log says once why.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LOGGER = logging.getLogger(__name__)

# meta stands for a GPU wherever work is counted, or shapes are checked, without one.
_DEVICES = ("cuda", "meta")
_failed: set[str] = set()

CONVOLVE, ADD_NORM, SAMPLE = "convolve", "add_norm", "sample"


def fuses(x: Tensor, operator: str) -> bool:
    """Whether to use the fused operator: none of them has a gradient, or follows automatic mixed precision."""
    return (
        x.device.type in _DEVICES
        and operator not in _failed
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cuda")
    )


def fused_or_plain(operator: str, fused: Callable[[], Tensor], plain: Callable[[], Tensor]) -> Tensor:
    """fused(), or from its first failure on plain().

    Compilers, drivers and linkers fail with errors of many kinds. Only a lack of memory is passed on, because plain()
    would need more.
    """
    if operator not in _failed:
        try:
            return fused()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            _failed.add(operator)
            reason = next(iter(str(error).splitlines()), "")
            LOGGER.warning("%s is not fused on this machine: %s: %s", operator, type(error).__name__, reason)
    return plain()


def convolve_relu(convolution: nn.Module, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
    """relu(convolution(x) + shortcut); x (M, c, h, w), shortcut as the result, which may overwrite nothing else."""

    def plain() -> Tensor:
        result = convolution(x)
        return (result if shortcut is None else result.add_(shortcut)).relu_()

    if not fuses(x, CONVOLVE):
        return plain()
    assert isinstance(convolution, nn.Conv2d)
    weight, bias, stride, padding = convolution.weight, convolution.bias, convolution.stride, convolution.padding
    return fused_or_plain(
        CONVOLVE, lambda: torch.ops.bevformer_ros.convolve(x, weight, bias, shortcut, stride, padding), plain
    )


def add_norm(norm: nn.Module, x: Tensor, residual: Tensor) -> Tensor:
    """norm(x + residual)."""
    if not fuses(x, ADD_NORM):
        return norm(x + residual)
    assert isinstance(norm, nn.LayerNorm)
    return fused_or_plain(
        ADD_NORM,
        lambda: torch.ops.bevformer_ros.add_norm(x, residual, norm.weight, norm.bias, norm.eps),
        lambda: norm(x + residual),
    )


def linear_relu(linear: nn.Module, x: Tensor) -> Tensor:
    """relu(linear(x)), in which cuBLAS applies the ReLU to what it is about to write."""
    if x.device.type not in _DEVICES or torch.is_grad_enabled() or torch.is_autocast_enabled("cuda"):
        return linear(x).relu_()
    assert isinstance(linear, nn.Linear)
    flat = torch._addmm_activation(linear.bias, x.flatten(0, -2), linear.weight.t())
    return flat.view(*x.shape[:-1], -1)


torch.library.define(
    "bevformer_ros::convolve",
    "(Tensor x, Tensor weight, Tensor? bias, Tensor? shortcut, int[] stride, int[] padding) -> Tensor",
)
torch.library.define(
    "bevformer_ros::add_norm", "(Tensor x, Tensor residual, Tensor weight, Tensor bias, float epsilon) -> Tensor"
)
torch.library.define(
    "bevformer_ros::sample",
    "(Tensor value, Tensor samples, Tensor? constant, Tensor reference_points, Tensor share, "
    "int[] heights, int[] widths, int sets) -> Tensor",
)


@torch.library.register_fake("bevformer_ros::convolve")
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    shortcut: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
) -> Tensor:
    return F.conv2d(x, weight, None, stride, padding)


@torch.library.impl("bevformer_ros::convolve", "cuda")
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    shortcut: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
) -> Tensor:
    if shortcut is None:
        return torch.cudnn_convolution_relu(x, weight, bias, stride, padding, (1, 1), 1)
    return torch.cudnn_convolution_add_relu(x, weight, shortcut, 1.0, bias, stride, padding, (1, 1), 1)


@torch.library.register_fake("bevformer_ros::add_norm")
def _(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.impl("bevformer_ros::add_norm", "cuda")
def _(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    from bevformer_ros.model.triton_norm import add_norm_in_one

    return add_norm_in_one(x, residual, weight, bias, epsilon)


@torch.library.register_fake("bevformer_ros::sample")
def _(
    value: Tensor,
    samples: Tensor,
    constant: Tensor | None,
    reference_points: Tensor,
    share: Tensor,
    heights: Sequence[int],
    widths: Sequence[int],
    sets: int,
) -> Tensor:
    return value.new_empty(*samples.shape[:2], value.shape[3] * value.shape[4])


@torch.library.impl("bevformer_ros::sample", "cuda")
def _(
    value: Tensor,
    samples: Tensor,
    constant: Tensor | None,
    reference_points: Tensor,
    share: Tensor,
    heights: Sequence[int],
    widths: Sequence[int],
    sets: int,
) -> Tensor:
    from bevformer_ros.model.attention.triton_sampling import attend

    return attend(value, samples, constant, reference_points, share, tuple(zip(heights, widths, strict=True)), sets)
