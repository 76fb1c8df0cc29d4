"""Small building blocks that several parts of the network share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def convolve_and_normalise(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Convolution without bias, then batch norm.

    With fixed statistics both are one affine map, so they run as one convolution whose weights are folded on the
    way: the stored weights stay as they were trained and no inference copy of the model is needed. The statistics
    stay in float32 in a model of reduced precision; only the folded weights are rounded.
    """
    if norm.training or norm.running_mean is None or norm.running_var is None:
        return norm(conv(x))
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    weight = (conv.weight * scale.view(-1, 1, 1, 1)).to(x.dtype)
    bias = (norm.bias - norm.running_mean * scale).to(x.dtype)
    return F.conv2d(x, weight, bias, conv.stride, conv.padding)


class ConvNorm(nn.Module):
    """Convolution with its batch norm."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return convolve_and_normalise(self.conv, self.norm, x)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut. shortcut_kernel 0: the identity."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, shortcut_kernel: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, width, 3, stride)
        self.conv2 = ConvNorm(width, width, 3)
        self.shortcut = ConvNorm(inputs, width, shortcut_kernel, stride) if shortcut_kernel else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv2(self.conv1(x).relu_())
        return inner.add_(self.shortcut(x)).relu_()


def feed_forward(channels: int, hidden: int, dropout: float) -> nn.Sequential:
    """The position-wise part of a transformer layer; the residual is added by the layer."""
    return nn.Sequential(
        nn.Linear(channels, hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(hidden, channels),
        nn.Dropout(dropout),
    )
