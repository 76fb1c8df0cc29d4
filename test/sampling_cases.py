"""Small problems of deformable attention, for every way to compute it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bevformer_ros.model.attention.torch_sampling import LevelShapes, View

HEADS, CHANNELS = 2, 8
PYRAMID: LevelShapes = ((7, 11), (2, 3), (1, 2))

Problem = tuple[Tensor, LevelShapes, Tensor, Tensor, View]


def problem(
    images: int = 2,
    queries: int = 5,
    level_shapes: LevelShapes = PYRAMID,
    points: int = 8,
    anchors: int = 4,
    spread: float = 1.0,
    seen: float = 0.5,
    batch: int = 1,
) -> Problem:
    """spread: of the offsets, in cells. seen: how many of the images a query looks into."""
    generator = torch.Generator().manual_seed(queries)
    cells = sum(height * width for height, width in level_shapes)
    value = torch.randn(batch, images, cells, HEADS, CHANNELS, generator=generator)
    offsets = spread * torch.randn(batch, queries, 2, HEADS, len(level_shapes), points, generator=generator)
    weights = torch.rand(batch, queries, HEADS, len(level_shapes), points, generator=generator)
    reference_points = torch.rand(batch, images, queries, anchors, 2, generator=generator)
    looks = torch.rand(batch, images, queries, generator=generator) < seen
    share = torch.rand(batch, images, queries, generator=generator) * looks
    return value, level_shapes, offsets, weights, View(reference_points, share)


CASES = [
    pytest.param(problem(queries=0), id="no query"),
    pytest.param(problem(seen=0.0), id="nothing seen"),
    pytest.param(problem(1, 1, ((1, 1),), points=1, anchors=1, spread=0.3, seen=1.0), id="one cell"),
    pytest.param(problem(1, 40, ((5, 3),), points=8, anchors=1, seen=1.0), id="one image, one level, many queries"),
    pytest.param(problem(batch=2), id="cameras, pyramid and pillar"),
    pytest.param(problem(1, 7, points=6, anchors=3, seen=1.0), id="no power of two"),
    pytest.param(problem(anchors=2, spread=8.0), id="mostly outside"),
    pytest.param(problem(points=4, spread=1e6), id="far outside"),
]


def gradients(function, inputs: Problem, of_reference_points: bool) -> tuple[Tensor, ...]:
    """Of an uneven sum of the result, by value, offsets and weights, and perhaps reference points."""
    value, level_shapes, offsets, weights, view = inputs
    tensors = [tensor.clone().requires_grad_() for tensor in (value, offsets, weights, view.reference_points)]
    if not of_reference_points:
        tensors.pop()
    view = View(tensors[3] if of_reference_points else view.reference_points, view.share)
    output = function(tensors[0], level_shapes, tensors[1], tensors[2], view)
    return torch.autograd.grad(output.float().sin().sum(), tensors)
