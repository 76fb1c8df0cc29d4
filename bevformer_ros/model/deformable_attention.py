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
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LevelShapes = tuple[tuple[int, int], ...]  # (height, width) of each level

# Rows sampled at once on the CPU, which bounds memory. Fewer would stay in the cache, but then the threads meet so
# often that the sampling takes twice as long on a busy machine.
_CPU_ROWS = 4096


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

    value: (I, S, H, D), levels one after the other, each row by row. offsets: (Q, 2, H, L, P) x and y in cells of the
    level, from reference point p mod Z for point p. weights: (Q, H, L, P). Cell centres lie at half-integers, outside
    an image the value is zero. Positions and weights are float32, whatever the type of value; torch must be left at
    its default not to multiply float32 matrices in TF32.
    """
    heads, _, points = weights.shape[1:]
    anchors = rows.reference_points.shape[1]
    layout = _layout(level_shapes, heads, points, anchors, value.device)
    table = _bordered_table(value, level_shapes)
    image_size = len(table) // len(value)
    step = _CPU_ROWS if value.device.type == "cpu" else max(1, len(rows.query))
    offsets, weights = offsets.flatten(1), weights.flatten(1)
    sampled = [
        _sample(
            table,
            layout,
            torch.addmm(offsets.index_select(0, query), reference_points.flatten(1), layout.position_from_reference),
            weights.index_select(0, query),
            (image * image_size).int(),
            heads,
        )
        for query, image, reference_points in zip(*(part.split(step) for part in rows), strict=True)
    ]
    return torch.cat(sampled).view(-1, heads * value.shape[-1])


class _Layout(NamedTuple):
    """Constants of the sampling, for N = H*L*P samples of a row. Cells count from the corner of the zero border.

    position_from_reference: (Z*2, 2*N). last: (2, N) largest position. start: (N,) index in an image's table of the
    level's first cell for the head. width: (N,) of the level in cells.
    """

    position_from_reference: Tensor
    last: Tensor
    start: Tensor
    width: Tensor


@functools.lru_cache(maxsize=32)
def _layout(level_shapes: LevelShapes, heads: int, points: int, anchors: int, device: torch.device) -> _Layout:
    """Made once per set of shapes, so that a forward pass copies no constants to a GPU.

    Outside inference mode, whoever asks first: training may want the same constants later.
    """
    with torch.inference_mode(False):
        return _make_layout(level_shapes, heads, points, anchors, device)


def _make_layout(level_shapes: LevelShapes, heads: int, points: int, anchors: int, device: torch.device) -> _Layout:
    bordered = torch.tensor([(width + 3, height + 3) for height, width in level_shapes])
    ends = bordered.prod(dim=1).cumsum(0)
    starts = ends - bordered.prod(dim=1) + ends[-1] * torch.arange(heads).unsqueeze(1)  # (H, L)
    samples = (heads, len(level_shapes), points)
    sizes = (bordered - 3).T[:, None, :, None].expand(2, *samples).float()
    selection = torch.eye(anchors).repeat(1, points // anchors)  # (Z, P)
    position_from_reference = torch.einsum("zp,ahlp,ab->zabhlp", selection, sizes, torch.eye(2))
    return _Layout(
        position_from_reference=position_from_reference.reshape(anchors * 2, -1).to(device),
        last=(sizes + 1).flatten(1).to(device),
        start=starts.unsqueeze(-1).expand(samples).flatten().int().to(device),
        width=(sizes[0] + 3).flatten().to(device),
    )


def _bordered_table(value: Tensor, level_shapes: LevelShapes) -> Tensor:
    """value (I, S, H, D) with a border of zeros around every level, as a table (I*H*S', D).

    One cell before and two after: a position clamped to one cell outside then reads zeros without any test.
    """
    images, _, heads, channels = value.shape
    cells = [(height + 3) * (width + 3) for height, width in level_shapes]
    table = value.new_zeros(images, heads, sum(cells), channels)
    levels = value.split([height * width for height, width in level_shapes], dim=1)
    starts = itertools.accumulate(cells, initial=0)
    for level, start, count, (height, width) in zip(levels, starts, cells, level_shapes, strict=False):
        # narrow, not split: autograd refuses to write into the views that split gives.
        part = table.narrow(2, start, count).view(images, heads, height + 3, width + 3, channels)
        part[:, :, 1:-2, 1:-2] = level.unflatten(1, (height, width)).permute(0, 3, 1, 2, 4)
    return table.view(-1, channels)


def _sample(
    table: Tensor, layout: _Layout, positions: Tensor, weights: Tensor, image_start: Tensor, heads: int
) -> Tensor:
    """(R*H, D) from positions (R, 2*N), where 0 is the edge of the image, and weights (R, N)."""
    positions = (positions.unflatten(1, (2, -1)) + 0.5).clamp(torch.zeros_like(layout.last), layout.last)
    cells = positions.floor()
    right, lower = (positions - cells).unbind(1)
    upper_left = torch.addcmul(cells[:, 0], cells[:, 1], layout.width).int() + (image_start.unsqueeze(1) + layout.start)
    upper_left.clamp_(min=0)  # what comes of a position that is not a number must be no address outside the table
    lower_left = upper_left + layout.width.int()
    weight_right = weights * right
    weight_left = weights - weight_right
    weight_lower_right = weight_right * lower
    weight_lower_left = weight_left * lower

    def bags(*corners: Tensor) -> Tensor:
        """Four times (R, N) -> (R*H, 4*L*P)."""
        return torch.stack([corner.unflatten(1, (heads, -1)) for corner in corners], dim=2).flatten(2).flatten(0, 1)

    indices = bags(upper_left, upper_left + 1, lower_left, lower_left + 1)
    corner_weights = bags(
        weight_left - weight_lower_left, weight_right - weight_lower_right, weight_lower_left, weight_lower_right
    ).to(table.dtype)
    if table.device.type == "cpu" and table.requires_grad:
        return _CpuTableGradient.apply(
            _weighted_sum(indices, table.detach(), corner_weights), table, indices, corner_weights
        )
    return _weighted_sum(indices, table, corner_weights)


def _weighted_sum(indices: Tensor, table: Tensor, weights: Tensor) -> Tensor:
    """(B, D) from a table (T, D): the rows that indices (B, n) name, by weights (B, n)."""
    return F.embedding_bag(indices, table, per_sample_weights=weights, mode="sum")


class _CpuTableGradient(torch.autograd.Function):
    """Passes a weighted sum on; backward it adds the table's gradient, as the transposed sparse product that it is.

    scipy needs a fifteenth of the time of embedding_bag's own backward pass, which sorts all indices first.
    """

    @staticmethod
    def forward(ctx: Any, summed: Tensor, table: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(indices, weights)
        ctx.table_rows = len(table)
        return summed.view_as(summed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        indices, weights = ctx.saved_tensors
        ends = np.arange(len(indices) + 1, dtype=np.int32) * indices.shape[1]
        sums = scipy.sparse.csr_matrix(
            (weights.float().flatten().numpy(), indices.flatten().numpy(), ends), (len(indices), ctx.table_rows)
        )
        table_gradient = torch.from_numpy(sums.T @ gradient.float().contiguous().numpy())
        return gradient, table_gradient.to(gradient.dtype), None, None


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
        # x and y are interleaved in the weights, as in the official ones; the sampling wants them apart.
        offset_weight, offset_bias = (
            parameter.unflatten(0, (-1, 2)).transpose(0, 1).flatten(0, 1)
            for parameter in (self.offsets.weight, self.offsets.bias)
        )
        offsets = F.linear(query, offset_weight, offset_bias).float().view(len(query), 2, self.heads, self.levels, -1)
        logits = self.weights(query).float().view(len(query), self.heads, self.sets, -1)
        weights = (logits.softmax(dim=-1) / self.sets).view(len(query), self.heads, self.levels, -1)
        value = self.value(features).unflatten(-1, (self.heads, -1))
        return deformable_attention(value, level_shapes, offsets, weights, rows)
