"""Temporal fusion of BEV features (paper, section 3.4): concatenate over time, residual blocks, one projection.

Shapes: B batch, T frames from oldest to newest, H x W cells of the BEV grid, C channels.
"""

from __future__ import annotations

from torch import Tensor, nn

from bevformer_ros.model.config import BevGridConfig, TemporalConfig
from bevformer_ros.model.layers import BasicBlock


class TemporalFusion(nn.Module):
    def __init__(self, config: TemporalConfig, grid: BevGridConfig, channels: int) -> None:
        super().__init__()
        self.grid = grid
        stacked = len(config.frames) * channels
        width = config.channels or stacked
        self.blocks = nn.Sequential(
            BasicBlock(stacked, width, 1, shortcut_kernel=0 if width == stacked else 3),
            *(BasicBlock(width, width, 1, shortcut_kernel=0) for _ in range(config.blocks - 1)),
        )
        self.projection = nn.Linear(width, channels)
        self.norm = nn.LayerNorm(channels)

    def forward(self, bevs: Tensor) -> Tensor:
        """bevs (B, T, H*W, C), all in the newest frame's coordinates -> (B, H*W, C)."""
        x = bevs.transpose(1, 2).flatten(2)  # (B, H*W, T*C), which is channels last
        x = self.blocks(x.unflatten(1, (self.grid.rows, self.grid.columns)).permute(0, 3, 1, 2))
        return self.norm(self.projection(x.permute(0, 2, 3, 1).flatten(1, 2)))
