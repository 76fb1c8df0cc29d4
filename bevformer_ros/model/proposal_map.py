"""Proposals written into the BEV map of their frame, so that the history holds what the first stage saw before.

The map of a past frame comes into the present by ego motion, and with it what was proposed then: it tells more about
where a thing stands, and how it moved. Each proposal is spread over the four cells around its centre with the weights
of a bilinear sample, as the warp into the present samples, so its centre of mass stays where the proposal is.

Shapes: B batch, P proposals, H x W cells of the BEV grid, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bevformer_ros.model.config import BevGridConfig
from bevformer_ros.model.proposals import Proposals

_USUAL_SCORE = 0.25
_USUAL_SPEED = 5.0  # m/s


class ProposalMap(nn.Module):
    """A small network turns class, score, size, heading and velocity into what is written; with the zeros that its last
    layer starts from it changes nothing. No gradient reaches the perspective head through it."""

    low: Tensor
    cell_size: Tensor

    def __init__(self, channels: int, classes: int, grid: BevGridConfig) -> None:
        super().__init__()
        self.rows, self.columns = grid.rows, grid.columns
        self.class_embedding = nn.Embedding(classes, channels)
        self.box_embedding = nn.Sequential(nn.Linear(8, channels), nn.ReLU(), nn.Linear(channels, channels))
        last = nn.Linear(channels, channels)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.output = nn.Sequential(nn.ReLU(), last)
        low, high = torch.tensor(grid.range[:2]), torch.tensor(grid.range[3:5])
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("cell_size", (high - low) / torch.tensor([grid.columns, grid.rows]), persistent=False)

    def forward(self, proposals: Proposals) -> Tensor:
        """What is to be added to the BEV map: (B, H*W, C) float32."""
        proposals = Proposals(*(values.detach() for values in proposals))
        embedded = self.class_embedding(proposals.labels) + self.box_embedding(_box_features(proposals))
        # float32 also where automatic mixed precision computes it: rounded shares would move a box
        written = self.output(embedded).float() * proposals.valid.unsqueeze(-1)  # (B, P, C)
        places = (proposals.centers[..., :2] - self.low) / self.cell_size - 0.5  # x counts columns, y rows
        first = places.floor()
        share = places - first
        cells = written.new_zeros(len(written), self.rows * self.columns, written.shape[-1])
        for right in (0, 1):
            for forward in (0, 1):
                column, row = (first[..., 0] + right).long(), (first[..., 1] + forward).long()
                inside = (column >= 0) & (column < self.columns) & (row >= 0) & (row < self.rows)
                weight = (share[..., 0] - 1 + right).abs() * (share[..., 1] - 1 + forward).abs() * inside
                cell = row.clamp(0, self.rows - 1) * self.columns + column.clamp(0, self.columns - 1)
                cells = cells.scatter_add(1, cell.unsqueeze(-1).expand_as(written), written * weight.unsqueeze(-1))
        return cells


def _box_features(proposals: Proposals) -> Tensor:
    """(B, P, 8): score, logarithm of length, width, height, cosine and sine of the heading, velocity."""
    score = proposals.scores.unsqueeze(-1) / _USUAL_SCORE - 1
    heading = torch.stack([proposals.yaws.cos(), proposals.yaws.sin()], dim=-1)
    return torch.cat([score, proposals.sizes.log(), heading, proposals.velocities / _USUAL_SPEED], dim=-1)
