"""Multi-scale deformable attention (Zhu et al. 2021), the one sampling operation of encoder and decoder.

Shapes: I images (cameras of the batch, or BEV maps), S cells of all levels of an image, H heads, D channels of a
head, C = H*D, Q queries of the whole batch, L levels, P points per head and level, R rows, Z reference points.

A row is one query looking into one image. A query's offsets and weights do not depend on the image, so they are
computed once per query, and only rows that can see something need to exist.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LevelShapes = tuple[tuple[int, int], ...]  # (height, width) of each level

# Rows sampled at once on the CPU: their indices and weights should stay in the cache.
_CPU_ROWS = 256


class Rows(NamedTuple):
    """Which query looks into which image, and where.

    query, image: (R,) integers. reference_points: (R, Z, 2) x, y in 0..1 of the image.
    """

    query: Tensor
    image: Tensor
    reference_points: Tensor


def deformable_attention(
    value: Tensor, level_shapes: LevelShapes, offsets: Tensor, weights: Tensor, rows: Rows
) -> Tensor:
    """Weighted sum of bilinear samples for each row: (R, C).

    value: (I, S, H, D), levels one after the other, each row by row. offsets: (Q, H, L, P, 2) x, y in cells of the
    level. weights: (Q, H, L, P). Point p starts from reference point p mod Z. Outside an image the value is zero;
    cell centres lie at half-integers. Positions are float32 whatever the type of value.
    """
    images, _, heads, channels = value.shape
    table = _bordered_table(value, level_shapes)
    levels = _levels(level_shapes, heads, value.device)
    image_stride = len(table) // images
    step = _CPU_ROWS if value.device.type == "cpu" else max(1, len(rows.query))
    sampled = [
        _sample(table, levels, offsets[query], weights[query], image * image_stride, reference_points)
        for query, image, reference_points in zip(*(part.split(step) for part in rows), strict=True)
    ]
    return torch.cat(sampled).view(-1, heads * channels)


class _Levels(NamedTuple):
    """Constants of the bordered table, made once per set of shapes so that a forward pass copies nothing to a GPU.

    size: (L, 1, 1, 2) width, height. width: (L, 1) of the bordered level, in rows of the table. start: (H, L, 1) row of
    the first cell. corner: (L, 1, 4) rows from a cell to itself, its right, its lower and its lower right neighbour.
    """

    size: Tensor
    width: Tensor
    start: Tensor
    corner: Tensor


@functools.lru_cache(maxsize=32)
def _levels(level_shapes: LevelShapes, heads: int, device: torch.device) -> _Levels:
    cells = [(height + 3) * (width + 3) for height, width in level_shapes]
    starts = torch.tensor([0, *itertools.accumulate(cells[:-1])], dtype=torch.int32)
    widths = torch.tensor([width + 3 for _, width in level_shapes], dtype=torch.int32)
    corners = torch.stack([0 * widths, 0 * widths + 1, widths, widths + 1], dim=-1)
    return _Levels(
        size=torch.tensor([(width, height) for height, width in level_shapes]).float().view(-1, 1, 1, 2).to(device),
        width=(widths * heads).float().view(-1, 1).to(device),
        start=(starts * heads + torch.arange(heads, dtype=torch.int32).view(-1, 1)).unsqueeze(-1).to(device),
        corner=(corners * heads).unsqueeze(1).to(device),
    )


def _bordered_table(value: Tensor, level_shapes: LevelShapes) -> Tensor:
    """value (I, S, H, D) with a border of zeros around every level, as a table (I*S'*H, D).

    One cell before and two after: a position clamped to one cell outside then reads zeros without any test.
    """
    images, _, heads, channels = value.shape
    cells = [height * width for height, width in level_shapes]
    levels = [
        F.pad(level.view(images, *shape, heads * channels), (0, 0, 1, 2, 1, 2)).flatten(1, 2)
        for level, shape in zip(value.split(cells, dim=1), level_shapes, strict=True)
    ]
    return torch.cat(levels, dim=1).view(-1, channels)


def _sample(
    table: Tensor, levels: _Levels, offsets: Tensor, weights: Tensor, image_start: Tensor, reference_points: Tensor
) -> Tensor:
    """(R*H, D) from offsets (R, H, L, P, 2), weights (R, H, L, P) and reference points (R, Z, 2)."""
    heads = offsets.shape[1]
    anchors = reference_points[:, None, None, None] * levels.size + 0.5  # (R, 1, L, 1, Z, 2), cells of the border count
    position = anchors + offsets.unflatten(3, (-1, reference_points.shape[1]))
    position = position.clamp(torch.zeros_like(levels.size), levels.size + 1).flatten(3, 4)  # (R, H, L, P, 2)
    cell = position.floor()
    right, lower = (position - cell).unbind(-1)
    cell_x, cell_y = cell.unbind(-1)
    start = image_start.int()[:, None, None, None] + levels.start  # (R, H, L, 1)
    index = (cell_y * levels.width + cell_x * heads).int() + start
    weight_right = weights * right
    weight_left = weights - weight_right
    lower_right = weight_right * lower
    lower_left = weight_left * lower
    corner_weights = torch.stack(
        [weight_left - lower_left, weight_right - lower_right, lower_left, lower_right], dim=-1
    )
    return F.embedding_bag(
        (index.unsqueeze(-1) + levels.corner).flatten(2).flatten(0, 1),
        table,
        per_sample_weights=corner_weights.flatten(2).flatten(0, 1).to(table.dtype),
        mode="sum",
    )


class DeformableAttention(nn.Module):
    """The learned projections around `deformable_attention`; the caller adds residual and dropout.

    sets: independent sets of points whose results are averaged, each with its own softmax; several sets need one
    level. Official temporal self-attention has two, one for each of its two (in v2 equal) BEV maps.
    """

    def __init__(
        self, channels: int, heads: int, levels: int, points: int, query_channels: int | None = None, sets: int = 1
    ) -> None:
        super().__init__()
        self.heads, self.levels, self.sets = heads, levels, sets
        samples = heads * sets * levels * points
        self.offsets = nn.Linear(query_channels or channels, samples * 2)
        self.weights = nn.Linear(query_channels or channels, samples)
        self.value = nn.Linear(channels, channels)
        self.output = nn.Linear(channels, channels)
        self._initialise(points)

    def _initialise(self, points: int) -> None:
        """Every head looks in its own direction, every point one cell further; all weigh the same."""
        angles = torch.arange(self.heads) * (2 * math.pi / self.heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
        directions = directions / directions.abs().amax(dim=-1, keepdim=True)
        steps = torch.arange(1, points + 1).view(1, 1, -1, 1)
        ring = directions.view(self.heads, 1, 1, 2) * steps  # (H, 1, P, 2)
        with torch.no_grad():
            self.offsets.bias.copy_(ring.expand(-1, self.sets * self.levels, -1, -1).flatten())
        for parameter in (self.offsets.weight, self.weights.weight, self.weights.bias):
            nn.init.zeros_(parameter)
        for projection in (self.value, self.output):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(self, query: Tensor, features: Tensor, level_shapes: LevelShapes, rows: Rows) -> Tensor:
        """query (Q, C), features (I, S, C) -> one (C) for each row, before the output projection: (R, C)."""
        offsets = self.offsets(query).float().view(len(query), self.heads, self.levels, -1, 2)
        logits = self.weights(query).float().view(len(query), self.heads, self.sets, -1)
        weights = (logits.softmax(dim=-1) / self.sets).view(len(query), self.heads, self.levels, -1)
        value = self.value(features).unflatten(-1, (self.heads, -1))
        return deformable_attention(value, level_shapes, offsets, weights, rows)
