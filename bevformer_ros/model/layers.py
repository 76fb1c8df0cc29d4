"""Small building blocks that several parts of the network share."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class ConvNorm(nn.Module):
    """Convolution with its batch norm."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))

    def fold(self) -> None:
        """For inference: with fixed statistics both are one affine map, so they become one convolution."""
        assert isinstance(self.norm, nn.BatchNorm2d)
        self.conv, self.norm = fuse_conv_bn_eval(self.conv, self.norm), nn.Identity()


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
