"""Multi-scale deformable attention (Zhu et al. 2021), the one sampling operation of encoder and decoder.

Shapes: B batch, N images that a query may look into (cameras, or one BEV map), S cells of all levels of an image,
H heads, D channels of a head, C = H*D, Q queries, L levels, P points per head and level.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bevformer_ros.model.attention.torch_sampling import LevelShapes, View, deformable_attention_in_torch
from bevformer_ros.model.fused_operators import SAMPLE, fused_or_plain, fuses

Sampling = Callable[[Tensor, LevelShapes, Tensor, Tensor, View], Tensor]


def deformable_attention(
    value: Tensor, level_shapes: LevelShapes, offsets: Tensor, weights: Tensor, view: View
) -> Tensor:
    """Weighted sum of bilinear samples for each query, summed over the images by their shares: (B, Q, C).

    value: (B, N, S, H, D), levels one after the other, each row by row. offsets: (B, Q, 2, H, L, P) x and y in cells
    of the level, from reference point p mod Z for point p. weights: (B, Q, H, L, P). Offsets and weights do not depend
    on the image. Cell centres lie at half-integers, outside an image the value is zero. Positions, weights and sums
    are float32, whatever the type of value; torch must be left at its default not to multiply float32 matrices in
    TF32. The shares get no gradient, nor do reference points in several images.
    """
    if not value.is_cuda:
        return deformable_attention_in_torch(value, level_shapes, offsets, weights, view)

    def fused() -> Tensor:
        from bevformer_ros.model.attention.triton_sampling import fused_deformable_attention

        return fused_deformable_attention(value, level_shapes, offsets, weights, view)

    return fused_or_plain(
        SAMPLE, fused, lambda: deformable_attention_in_torch(value, level_shapes, offsets, weights, view)
    )


class DeformableAttention(nn.Module):
    """The learned projections around `deformable_attention`; the caller adds residual and dropout.

    sets: independent sets of points whose results are averaged, each with its own softmax; several sets need one
    level. Official temporal self-attention has two, one for each of its two (in v2 equal) BEV maps.
    sample: what samples; replaced only to compare one way with another.
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
        self.sample: Sampling = deformable_attention
        self.samples: nn.Linear | None = None  # x and y of offsets, and weights, once folded
        self.constant: nn.Parameter | None = None
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

    def forward(self, query: Tensor, features: Tensor, level_shapes: LevelShapes, view: View) -> Tensor:
        """query (B, Q, C), features (B, N, S, C) -> (B, Q, C), before the output projection."""
        value = self.value(features).unflatten(-1, (self.heads, -1))
        if self.samples is not None:
            points = self.samples(query).unflatten(-1, (3, self.heads, self.levels, -1))
            if fuses(value, SAMPLE) and self.sample is deformable_attention:
                return self._fused(value, points, level_shapes, view)
            points = points if self.constant is None else points + self.constant
            return self._sampled(value, points[:, :, :2], points[:, :, 2], level_shapes, view)
        weight, bias = self._offset_projection()
        offsets = F.linear(query, weight, bias).unflatten(-1, (2, self.heads, self.levels, -1))
        logits = self.weights(query).unflatten(-1, (self.heads, self.levels, -1))
        return self._sampled(value, offsets, logits, level_shapes, view)

    def fold(self, position: Tensor | None = None) -> None:
        """For inference: one projection instead of two.

        position: (Q, C') of queries that are given as [x, x + position] in training, and as x alone from then on. What
        their positions add to the samples is constant.
        """
        offset_weight, offset_bias = self._offset_projection()
        weight = torch.cat([offset_weight, self.weights.weight])
        bias = torch.cat([offset_bias, self.weights.bias])
        if position is not None:
            of_query, of_placed = weight.chunk(2, dim=1)
            constant = F.linear(position, of_placed, bias)
            self.constant = nn.Parameter(constant.unflatten(-1, (3, self.heads, self.levels, -1)), requires_grad=False)
            weight = of_query + of_placed
        with torch.device(weight.device):
            self.samples = nn.Linear(weight.shape[1], weight.shape[0], bias=position is None)
        self.samples.weight = nn.Parameter(weight, requires_grad=False)
        if position is None:
            self.samples.bias = nn.Parameter(bias, requires_grad=False)
        del self.offsets, self.weights

    def _offset_projection(self) -> tuple[Tensor, Tensor]:
        """x and y are interleaved in the weights, as in the official ones; the sampling wants them apart."""
        weight, bias = (
            parameter.unflatten(0, (-1, 2)).transpose(0, 1).flatten(0, 1)
            for parameter in (self.offsets.weight, self.offsets.bias)
        )
        return weight, bias

    def _sampled(self, value: Tensor, offsets: Tensor, logits: Tensor, level_shapes: LevelShapes, view: View) -> Tensor:
        """logits (B, Q, H, L, sets * P), or with several sets, which need one level, set after set."""
        weights = logits.flatten(3).unflatten(-1, (self.sets, -1)).softmax(dim=-1, dtype=torch.float32)
        if self.sets > 1:
            weights = weights / self.sets
        return self.sample(value, level_shapes, offsets, weights.view_as(logits), view)

    def _fused(self, value: Tensor, points: Tensor, level_shapes: LevelShapes, view: View) -> Tensor:
        heights, widths = zip(*level_shapes, strict=True)

        def plain() -> Tensor:
            placed = points if self.constant is None else points + self.constant
            return self._sampled(value, placed[:, :, :2], placed[:, :, 2], level_shapes, view)

        return fused_or_plain(
            SAMPLE,
            lambda: torch.ops.bevformer_ros.sample(
                value, points, self.constant, view.reference_points, view.share, heights, widths, self.sets
            ),
            plain,
        )
