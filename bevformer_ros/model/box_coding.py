"""Box conventions. The only place that knows how the official weights write a box.

Box code (10 numbers, the network's output): x, y, log width, log length, z, log height, sine, cosine of the official
yaw, velocity x, y; centre in metres. Official box (9 numbers): x, y, z, width, length, height, yaw, velocity x, y. The
official yaw is that of old mmdet3d: -yaw - pi/2, where our yaw runs counter-clockwise from +x along the length.

Shapes: B batch, Q queries, K classes, n boxes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

BOX_CODE_SIZE = 10
_SIGMOID_EPSILON = 1e-5


class Boxes(NamedTuple):
    """Boxes in the BEV frame, our convention: geometric centre, length width height, yaw along the length.

    centers: (..., n, 3). sizes: (..., n, 3). yaws: (..., n). velocities: (..., n, 2).
    """

    centers: Tensor
    sizes: Tensor
    yaws: Tensor
    velocities: Tensor


class DecodedBoxes(NamedTuple):
    """The best n boxes of each batch element, best first; fewer than n where valid (B, n) is False.

    scores, labels: (B, n). query: (B, n) which query a box comes from.
    """

    boxes: Boxes
    scores: Tensor
    labels: Tensor
    query: Tensor
    valid: Tensor


def box_codes_at(
    reference_points: Tensor, offsets: Tensor, range_low: Tensor, range_extent: Tensor
) -> tuple[Tensor, Tensor]:
    """Box codes (..., 10) and refined points (..., 3 in 0..1) from the box branch's output (..., 10).

    The branch gives the centre as an offset to the reference point (..., 3 in 0..1) in logit space. range_low,
    range_extent: (3,) of the detection range, in metres.
    """
    # By slices: a list as an index would be copied to the device, which no CUDA graph can record.
    center_offsets = torch.cat([offsets[..., :2], offsets[..., 4:5]], dim=-1)
    refined = (center_offsets + torch.logit(reference_points, eps=_SIGMOID_EPSILON)).sigmoid()
    place = torch.addcmul(range_low, refined, range_extent)
    return torch.cat([place[..., :2], offsets[..., 2:4], place[..., 2:], offsets[..., 5:]], dim=-1), refined


def codes_without_place(sizes: Tensor, yaws: Tensor, velocities: Tensor) -> Tensor:
    """Box codes (..., 10) of sizes (..., 3), yaws (...) and velocities (..., 2), zero where they tell the centre."""
    return boxes_to_codes(Boxes(torch.zeros_like(sizes), sizes, yaws, velocities))


def codes_to_boxes(codes: Tensor) -> Boxes:
    """Box codes (..., n, 10) -> boxes."""
    x, y, log_width, log_length, z, log_height, sine, cosine, _, _ = codes.unbind(-1)
    return Boxes(
        centers=torch.stack([x, y, z], dim=-1),
        sizes=torch.stack([log_length, log_width, log_height], dim=-1).exp(),
        yaws=_swap_yaw(torch.atan2(sine, cosine)),
        velocities=codes[..., 8:],
    )


def boxes_to_codes(boxes: Boxes) -> Tensor:
    """Boxes -> box codes (..., n, 10), the inverse of codes_to_boxes."""
    x, y, z = boxes.centers.unbind(-1)
    log_length, log_width, log_height = boxes.sizes.log().unbind(-1)
    yaw = _swap_yaw(boxes.yaws)
    code = torch.stack([x, y, log_width, log_length, z, log_height, yaw.sin(), yaw.cos()], dim=-1)
    return torch.cat([code, boxes.velocities], dim=-1)


def official_to_boxes(official: Tensor) -> Boxes:
    """Official boxes (..., n, 9) with z at the centre -> boxes."""
    width, length, height = official[..., 3:6].unbind(-1)
    return Boxes(
        centers=official[..., :3],
        sizes=torch.stack([length, width, height], dim=-1),
        yaws=_swap_yaw(official[..., 6]),
        velocities=official[..., 7:],
    )


def boxes_to_official(boxes: Boxes) -> Tensor:
    """Boxes -> official boxes (..., n, 9) with z at the centre."""
    length, width, height = boxes.sizes.unbind(-1)
    sizes = torch.stack([width, length, height], dim=-1)
    return torch.cat([boxes.centers, sizes, _swap_yaw(boxes.yaws).unsqueeze(-1), boxes.velocities], dim=-1)


def _swap_yaw(yaw: Tensor) -> Tensor:
    """From the official yaw to ours or back (the map is its own inverse), in [-pi, pi)."""
    return torch.remainder(math.pi / 2 - yaw, 2 * math.pi) - math.pi


def decode_boxes(
    class_logits: Tensor,
    box_codes: Tensor,
    max_detections: int,
    score_threshold: float,
    padding_mask: Tensor | None = None,
) -> DecodedBoxes:
    """The best boxes over query x class of one decoder layer: logits (B, Q, K), codes (B, Q, 10).

    Without non-maximum suppression: the decoder learned to give one box per object. Boxes at or below the score
    threshold are not valid; if none passes the result is empty (the official code lowers the threshold instead).
    Shapes stay static, so that nothing waits for the device: the caller drops what is not valid.
    """
    scores = class_logits.sigmoid()
    if padding_mask is not None:
        scores = scores.masked_fill(padding_mask.unsqueeze(-1), 0.0)
    classes = scores.shape[-1]
    count = min(max_detections, scores[0].numel())
    best_scores, index = scores.flatten(1).topk(count)
    query = index // classes
    codes = box_codes.gather(1, query.unsqueeze(-1).expand(-1, -1, BOX_CODE_SIZE))
    return DecodedBoxes(codes_to_boxes(codes), best_scores, index % classes, query, best_scores > score_threshold)
