"""Dense loss of the perspective head (paper, section 3.3; DD3D, Park et al. 2021): every image teaches the backbone.

Equal to the official code, down to three oddities: the 2D boxes' overlap has one square pixel added above and below;
the smooth L1 of the corners is 0.5 x^2 below its threshold, not 0.5 x^2 / threshold, and so has a step there; the loss
of the attributes is a plain mean, where all others weigh by centerness.

Shapes: M images, K classes, P positive locations, A locations of all images and levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bevformer_ros.model.config import PerspectiveHeadConfig
from bevformer_ros.model.perspective_boxes import decode_boxes3d, inverse_intrinsics
from bevformer_ros.model.perspective_head import PerspectiveLevel
from bevformer_ros.training.config import PerspectiveLossConfig
from bevformer_ros.training.focal import focal_loss
from bevformer_ros.training.perspective_targets import (
    NO_ATTRIBUTE,
    PerspectiveTargets,
    PerspectiveTruth,
    assign_targets,
)

_SMALLEST_WEIGHT = 1e-6


class PerspectiveLoss(NamedTuple):
    """Weighted scalars; rotations, centers, depths and sizes are the disentangled parts of the 3D box."""

    classes: Tensor
    boxes2d: Tensor
    sides: Tensor
    centerness: Tensor
    rotations: Tensor
    centers: Tensor
    depths: Tensor
    sizes: Tensor
    confidences: Tensor
    attributes: Tensor
    speeds: Tensor

    @property
    def total(self) -> Tensor:
        return torch.stack(list(self)).sum()


def perspective_loss(
    levels: Sequence[PerspectiveLevel],
    truth: Sequence[PerspectiveTruth],
    intrinsics: Tensor,
    head: PerspectiveHeadConfig,
    config: PerspectiveLossConfig,
) -> PerspectiveLoss:
    """levels: all levels' raw outputs for M images; truth: one entry per image; intrinsics (M, 3, 3) of the input.

    Without any object only the class loss is more than zero, and every output still has a (zero) gradient.
    Raises ValueError if the number of images or levels does not fit.
    """
    images = len(levels[0].class_logits)
    if len(truth) != images or len(intrinsics) != images:
        raise ValueError(f"truth and intrinsics must be those of {images} images, got {len(truth)}, {len(intrinsics)}")
    shapes = [(level.class_logits.shape[-2], level.class_logits.shape[-1]) for level in levels]
    targets = assign_targets(shapes, head.strides, truth, config)
    labels = targets.truth.labels[targets.objects]
    count = max(len(labels), 1)
    weights = targets.centerness
    weight_sum = weights.sum().clamp(min=_SMALLEST_WEIGHT)

    flat = PerspectiveLevel(*(_flatten(parts) for parts in zip(*levels, strict=True)))
    one_hot = torch.zeros_like(flat.class_logits)
    one_hot[targets.places, labels] = 1
    at = PerspectiveLevel(*(values[targets.places] for values in flat))
    centerness_error = F.binary_cross_entropy_with_logits(at.centerness.squeeze(1), weights, reduction="sum")
    solid, distance = _box3d_losses(at, targets, labels, inverse_intrinsics(intrinsics.float()), head, config)
    confidence_error = F.binary_cross_entropy_with_logits(
        _of_class(at.confidences, labels, len(head.canonical_sizes)).squeeze(1), (-distance).exp(), reduction="none"
    )
    rotations, centers, depths, sizes = ((error * weights).sum() / weight_sum for error in solid)
    sides_error = (at.box2d - targets.sides).abs().mean(dim=1)
    return PerspectiveLoss(
        classes=focal_loss(flat.class_logits, one_hot, config.focal).sum() / count,
        boxes2d=config.boxes2d_weight * (giou_loss(at.box2d, targets.sides) * weights).sum() / weight_sum,
        sides=config.sides_weight * (sides_error * weights).sum() / weight_sum,
        centerness=centerness_error / count,
        rotations=config.rotation_weight * rotations,
        centers=config.center_weight * centers,
        depths=config.depth_weight * depths,
        sizes=config.size_weight * sizes,
        confidences=config.confidence_weight * (confidence_error * weights).sum() / weight_sum,
        attributes=config.attribute_weight * _attribute_loss(at.attributes, targets),
        speeds=config.speed_weight * _speed_loss(at.speeds.squeeze(1), targets, config.speed_beta),
    )


def _flatten(levels: Sequence[Tensor]) -> Tensor:
    """(A, channels) float32 from every level's (M, channels, h, w)."""
    return torch.cat([level.permute(0, 2, 3, 1).flatten(0, 2) for level in levels]).float()


def _of_class(values: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The components (P, components) of one class each, from (P, components * K)."""
    rows = torch.arange(len(labels), device=labels.device)
    return values.unflatten(1, (-1, classes))[rows, :, labels]


def giou_loss(sides: Tensor, target: Tensor) -> Tensor:
    """1 - generalised overlap (P,) of boxes given by their sides' distances (P, 4) from a common location."""
    overlap = _area(torch.minimum(sides, target))
    union = _area(sides) + _area(target) - overlap
    hull = _area(torch.maximum(sides, target))
    return 1 - (overlap + 1) / (union + 1) + (hull - union) / hull


def _area(sides: Tensor) -> Tensor:
    left, top, right, bottom = sides.unbind(-1)
    return (left + right) * (top + bottom)


def _box3d_losses(
    at: PerspectiveLevel,
    targets: PerspectiveTargets,
    labels: Tensor,
    inverse: Tensor,
    head: PerspectiveHeadConfig,
    config: PerspectiveLossConfig,
) -> tuple[list[Tensor], Tensor]:
    """Corner losses, each (P,), of boxes that have one predicted part and are true otherwise: rotation, projected
    centre, depth, size (Simonelli et al. 2019). And the mean distance (P,) of the wholly predicted box, detached.
    """
    canonical = inverse.new_tensor(head.canonical_sizes)[labels]
    quaternions, center_offsets, depths, raw_sizes = (
        _of_class(values, labels, len(head.canonical_sizes))
        for values in (at.quaternions, at.center_offsets, at.depths, at.sizes)
    )
    centers, sizes, rotations = decode_boxes3d(
        quaternions,
        center_offsets,
        depths.squeeze(1),
        raw_sizes,
        targets.locations,
        inverse[targets.images],
        canonical,
        head,
    )
    true_centers, true_sizes, true_rotations = (
        part[targets.objects].float() for part in (targets.truth.centers, targets.truth.sizes, targets.truth.rotations)
    )
    depth, true_depth = centers[:, 2:], true_centers[:, 2:]
    true_corners = box_corners(true_centers, true_sizes, true_rotations)
    mixed = (
        box_corners(true_centers, true_sizes, rotations),
        box_corners(centers / depth * true_depth, true_sizes, true_rotations),
        box_corners(true_centers / true_depth * depth, true_sizes, true_rotations),
        box_corners(true_centers, sizes, true_rotations),
    )
    losses = [_corner_error(corners, true_corners, config.corner_beta).mean(dim=(1, 2)) for corners in mixed]
    distance = (box_corners(centers, sizes, rotations) - true_corners).detach().abs().mean(dim=(1, 2))
    return losses, distance


def box_corners(centers: Tensor, sizes: Tensor, rotations: Tensor) -> Tensor:
    """(P, 8, 3) from centres (P, 3), length width height (P, 3) and rotations (P, 3, 3) parent_from_object."""
    signs = torch.cartesian_prod(*[sizes.new_tensor([-0.5, 0.5])] * 3)
    offsets = signs * sizes.unsqueeze(1)  # (P, 8, 3) in the object's frame
    return centers.unsqueeze(1) + (rotations.unsqueeze(1) * offsets.unsqueeze(2)).sum(-1)


def _corner_error(corners: Tensor, target: Tensor, beta: float) -> Tensor:
    distance = (corners - target).abs()
    return torch.where(distance < beta, 0.5 * distance.square(), distance - 0.5 * beta)


def _attribute_loss(logits: Tensor, targets: PerspectiveTargets) -> Tensor:
    attributes = targets.truth.attributes[targets.objects]
    known = (attributes != NO_ATTRIBUTE).nonzero().squeeze(1)
    return F.cross_entropy(logits[known], attributes[known], reduction="sum") / max(len(known), 1)


def _speed_loss(speeds: Tensor, targets: PerspectiveTargets, beta: float) -> Tensor:
    true_speeds = targets.truth.speeds[targets.objects].float()
    known = (~true_speeds.isnan()).nonzero().squeeze(1)
    error = F.smooth_l1_loss(speeds[known], true_speeds[known], beta=beta, reduction="none")
    weights = targets.centerness[known]
    return (error * weights).sum() / weights.sum().clamp(min=_SMALLEST_WEIGHT)
