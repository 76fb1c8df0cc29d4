"""Overlap of boxes on the ground, with static shapes: no polygon is ever built.

The border of what two rectangles share consists of those parts of either border that lie in the other rectangle. By
Green's theorem its area is half the sum of the cross products of these segments' ends.

Shapes: B batch, S boxes; index (i, j) is box j as box i sees it.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Sides that lie on one another belong to both borders but count once: inside begins a little farther out for one of the
# two, and a little farther in for the other.
_TIE = 1e-4
_PARALLEL = 1e-9


def footprint_iou(centers: Tensor, sizes: Tensor, yaws: Tensor) -> Tensor:
    """Intersection over union (B, S, S): centers (B, S, 3), sizes (B, S, 3) length first, yaws (B, S)."""
    half = sizes[..., :2] / 2
    own = _corners(half)  # (B, S, 4, 2), each box in its own frame
    seen = _seen_from_each_other(own, centers[..., :2], yaws)  # (B, S, S, 4, 2)
    rectangle = half[:, :, None, None]
    theirs = _cross_sum(seen, *_inside(seen, rectangle * (1 + _TIE)))
    start, stop = (shares.transpose(1, 2) for shares in _inside(seen, rectangle * (1 - _TIE)))
    overlap = ((theirs + _cross_sum(own.unsqueeze(2), start, stop)) / 2).clamp(min=0)
    areas = sizes[..., 0] * sizes[..., 1]
    return overlap / (areas.unsqueeze(2) + areas.unsqueeze(1) - overlap)


def _corners(half: Tensor) -> Tensor:
    """(..., 4, 2), counter-clockwise, from half the length and width (..., 2)."""
    x, y = half.unbind(-1)
    return torch.stack([torch.stack(corner, dim=-1) for corner in ((x, y), (-x, y), (-x, -y), (x, -y))], dim=-2)


def _seen_from_each_other(corners: Tensor, centers: Tensor, yaws: Tensor) -> Tensor:
    """(B, S, S, 4, 2): corners (B, S, 4, 2) of box j in the frame of box i."""
    placed = _turned(corners, yaws.unsqueeze(2)) + centers.unsqueeze(2)
    return _turned(placed.unsqueeze(1) - centers[:, :, None, None], -yaws[:, :, None, None])


def _turned(points: Tensor, angles: Tensor) -> Tensor:
    cosine, sine = angles.cos(), angles.sin()
    x, y = points.unbind(-1)
    return torch.stack([cosine * x - sine * y, sine * x + cosine * y], dim=-1)


def _inside(corners: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
    """Where each side from a corner (..., 4, 2) to the next enters and leaves the rectangle of half a length and width
    about the origin, as shares (..., 4) of the side; equal where it stays outside (Liang and Barsky 1984)."""
    along = corners.roll(-1, dims=-2) - corners
    along = torch.where(along.abs() < _PARALLEL, _PARALLEL, along)
    first, second = (-half - corners) / along, (half - corners) / along
    start = torch.minimum(first, second).amax(-1).clamp(min=0)
    stop = torch.maximum(first, second).amin(-1).clamp(max=1)
    return start, torch.maximum(start, stop)


def _cross_sum(corners: Tensor, start: Tensor, stop: Tensor) -> Tensor:
    """(...): sum over the four sides of the cross product of the points at two shares (..., 4) of each."""
    # Of two points on a line through p along d it is (stop - start) times the cross product of p and d.
    following = corners.roll(-1, dims=-2)
    cross = corners[..., 0] * following[..., 1] - corners[..., 1] * following[..., 0]
    return ((stop - start) * cross).sum(-1)
