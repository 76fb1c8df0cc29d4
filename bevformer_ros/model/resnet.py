"""Image backbone: ResNet as the Caffe weights have it, with the stride of a bottleneck in its first 1x1 convolution.

Shapes: M images (batch x cameras), K base channels (64 in the released models).
"""

from __future__ import annotations

from torch import Tensor, nn

from bevformer_ros.model.config import BackboneConfig
from bevformer_ros.model.layers import BasicBlock, ConvNorm, join_biases

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class Bottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up, around a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, shortcut_kernel: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = ConvNorm(inputs, width, 1, stride)
        self.conv2 = ConvNorm(width, width, 3)
        self.conv3 = ConvNorm(width, outputs, 1)
        self.shortcut = ConvNorm(inputs, outputs, shortcut_kernel, stride) if shortcut_kernel else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3.with_relu(self.conv2.with_relu(self.conv1.with_relu(x)), self.shortcut(x))

    def join_biases(self) -> None:
        """For inference, once folded; see the function."""
        join_biases(self.conv3, self.shortcut)


class ResNet(nn.Module):
    """Features at strides 8, 16 and 32. `output_channels` are their channels."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        block = BasicBlock if config.depth < 50 else Bottleneck
        channels = config.base_channels
        self.stem = ConvNorm(3, channels, 7, stride=2)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = nn.ModuleList()
        widths = [config.base_channels * 2**stage for stage in range(4)]
        for stage, (width, count) in enumerate(zip(widths, _BLOCKS[config.depth], strict=True)):
            blocks = []
            for index in range(count):
                stride = 2 if index == 0 and stage > 0 else 1
                changes_shape = stride != 1 or channels != width * block.expansion
                blocks.append(block(channels, width, stride, shortcut_kernel=1 if changes_shape else 0))
                channels = width * block.expansion
            self.stages.append(nn.Sequential(*blocks))
        self.output_channels = tuple(width * block.expansion for width in widths[1:])

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Normalised BGR images (M, 3, H, W) -> three maps (M, c, h, w) in the type of the weights."""
        x = self.pool(self.stem.with_relu(images.to(self.stem.conv.weight.dtype)))
        outputs = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return tuple(outputs[1:])
