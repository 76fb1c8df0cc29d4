"""Shapes of the image side at sizes that are no multiple of the stride, and the folded batch norm."""

from __future__ import annotations

import pytest
import torch

from bevformer_ros.model.config import BackboneConfig
from bevformer_ros.model.fpn import FeaturePyramid
from bevformer_ros.model.layers import ConvNorm
from bevformer_ros.model.resnet import ResNet


@pytest.mark.parametrize(
    ("depth", "channels"), [(18, (16, 32, 64)), (34, (16, 32, 64)), (50, (64, 128, 256)), (101, (64, 128, 256))]
)
def test_backbone_is_fully_convolutional(depth: int, channels: tuple[int, ...]) -> None:
    backbone = ResNet(BackboneConfig(depth, base_channels=8)).eval()
    assert backbone.output_channels == channels
    with torch.no_grad():
        levels = backbone(torch.randn(2, 3, 72, 104))
    assert [tuple(level.shape) for level in levels] == [
        (2, count, -(-72 // stride), -(-104 // stride)) for count, stride in zip(channels, (8, 16, 32), strict=True)
    ]


def test_neck_adds_coarser_levels() -> None:
    neck = FeaturePyramid((4, 8, 16), 6, levels=5)
    inputs = (torch.randn(1, 4, 9, 13), torch.randn(1, 8, 5, 7), torch.randn(1, 16, 3, 4))
    sizes = [(9, 13), (5, 7), (3, 4), (2, 2), (1, 1)]
    assert [tuple(level.shape) for level in neck(inputs)] == [(1, 6, *size) for size in sizes]


def test_batch_norm_is_trained_and_then_folded() -> None:
    layer = ConvNorm(3, 5, kernel=3, stride=2)
    layer.norm.running_mean.uniform_(-1, 1)
    layer.norm.running_var.uniform_(0.5, 2)
    torch.nn.init.uniform_(layer.norm.weight)
    images = torch.randn(2, 3, 8, 9)
    torch.testing.assert_close(layer(images).mean(dim=(0, 2, 3)), layer.norm.bias, atol=1e-5, rtol=0)
    expected = layer.eval()(images)
    layer.fold()
    torch.testing.assert_close(layer(images), expected)
