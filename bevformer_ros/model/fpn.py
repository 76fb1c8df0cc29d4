"""Neck: feature pyramid (Lin et al. 2017) with two coarser levels on top, as in FCOS.

Shapes: M images (batch x cameras), C channels of every level.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class FeaturePyramid(nn.Module):
    """Three backbone maps in, `levels` maps of C channels out; each further level halves the size of the last."""

    def __init__(self, input_channels: tuple[int, ...], channels: int, levels: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(inputs, channels, 1) for inputs in input_channels)
        self.outputs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in input_channels)
        self.extras = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in range(levels - len(input_channels))
        )

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Three maps (M, c, h, w), finest first -> maps (M, C, h, w), finest first."""
        merged = [lateral(x) for lateral, x in zip(self.laterals, features, strict=True)]
        for fine in range(len(merged) - 2, -1, -1):
            merged[fine] = merged[fine] + F.interpolate(merged[fine + 1], size=merged[fine].shape[-2:], mode="nearest")
        maps = [output(x) for output, x in zip(self.outputs, merged, strict=True)]
        for index, extra in enumerate(self.extras):
            maps.append(extra(maps[-1].relu() if index else maps[-1]))
        return tuple(maps)
