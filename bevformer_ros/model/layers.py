"""Small building blocks that several parts of the network share."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bevformer_ros.model.fused_operators import convolve_relu, linear_relu


class ConvNorm(nn.Module):
    """Convolution with its batch norm."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))

    def with_relu(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """relu(self(x) + shortcut), in place where that is possible."""
        if isinstance(self.norm, nn.Identity):
            return convolve_relu(self.conv, x, shortcut)
        result = self(x)
        return (result if shortcut is None else result.add_(shortcut)).relu_()

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
        return self.conv2.with_relu(self.conv1.with_relu(x), self.shortcut(x))

    def join_biases(self) -> None:
        """For inference, once folded; see the function."""
        join_biases(self.conv2, self.shortcut)


def join_biases(last: ConvNorm, shortcut: nn.Module) -> None:
    """Both are added, so one bias does for two."""
    if isinstance(shortcut, ConvNorm):
        assert last.conv.bias is not None and shortcut.conv.bias is not None
        last.conv.bias += shortcut.conv.bias
        shortcut.conv.bias = None


class FeedForward(nn.Sequential):
    """The position-wise part of a transformer layer; the residual is added by the layer."""

    def __init__(self, channels: int, hidden: int, dropout: float) -> None:
        super().__init__(
            nn.Linear(channels, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, channels),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return super().forward(x)
        return self[3](linear_relu(self[0], x))
