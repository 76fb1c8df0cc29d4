"""Set loss of the detection decoder: queries are matched one to one with the objects, layer by layer (DETR, Carion
et al. 2020).

Equal to the official code, except that it also takes an image without objects, and that a loss that is not a number
stays one: the official code makes it zero, and nobody learns that training has diverged.

Shapes: L decoder layers, B batch, G groups (group-DETR), Q queries of a group, K classes, n objects of a sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from bevformer_ros.model.box_coding import Boxes, boxes_to_codes
from bevformer_ros.model.decoder import DecoderOutput
from bevformer_ros.training.config import BevLossConfig, FocalConfig
from bevformer_ros.training.focal import focal_loss

# Velocity takes no part in matching: it is unknown for some objects.
_MATCHED_CODES = 8
_MATCHING_EPSILON = 1e-12
# Cost of a pair that cannot be compared (an object with a target that is not finite); scipy refuses NaN.
_INCOMPARABLE = 1e4


class BevTruth(NamedTuple):
    """Objects of one sample in the BEV frame: boxes of n objects, velocity NaN where unknown; labels (n,) int64."""

    boxes: Boxes
    labels: Tensor


class _Target(NamedTuple):
    """Objects of one sample as the decoder writes them: codes (n, 10), labels (n,)."""

    codes: Tensor
    labels: Tensor


class BevLoss(NamedTuple):
    """Weighted losses of every decoder layer, each (L,), averaged over the groups.

    assigned: (L, B, G*Q) index of the object that a query was matched with, -1 for none.
    """

    classes: Tensor
    boxes: Tensor
    assigned: Tensor

    @property
    def total(self) -> Tensor:
        return self.classes.sum() + self.boxes.sum()


def bev_loss(output: DecoderOutput, truth: Sequence[BevTruth], config: BevLossConfig, groups: int = 1) -> BevLoss:
    """The loss of all decoder layers. groups: of the queries, which lie one group after the other.

    Each group is matched on its own (group-DETR, Chen et al. 2023). Padded queries are neither matched nor counted.
    Raises ValueError if the batch or the groups do not fit the output.
    """
    layers, batch, queries = output.class_logits.shape[:3]
    if len(truth) != batch:
        raise ValueError(f"truth must have one entry per sample of the batch ({batch}), got {len(truth)}")
    if groups < 1 or queries % groups:
        raise ValueError(f"groups must divide the {queries} queries, got {groups}")
    used = torch.ones_like(output.class_logits[0, ..., 0], dtype=torch.bool)
    if output.padding_mask is not None:
        used = ~output.padding_mask
    targets = [
        _Target(boxes_to_codes(Boxes(*(part.float() for part in sample.boxes))), sample.labels) for sample in truth
    ]

    class_losses, box_losses, assigned = [], [], []
    for logits, codes in zip(output.class_logits.float(), output.box_codes.float(), strict=True):
        for group in torch.arange(queries, device=logits.device).chunk(groups):
            parts = logits[:, group], codes[:, group], used[:, group]
            matches = _match_batch(*parts, _radii(output.from_proposal[group], config), targets, config)
            class_loss, box_loss = _group_loss(*parts, matches, targets, config)
            class_losses.append(class_loss)
            box_losses.append(box_loss)
            assigned.append(matches)
    return BevLoss(
        torch.stack(class_losses).view(layers, groups).mean(1),
        torch.stack(box_losses).view(layers, groups).mean(1),
        torch.stack(assigned).view(layers, groups, batch, -1).transpose(1, 2).flatten(2),
    )


@torch.no_grad()
def _match_batch(
    logits: Tensor,
    codes: Tensor,
    used: Tensor,
    radii: Tensor,
    targets: Sequence[_Target],
    config: BevLossConfig,
) -> Tensor:
    """(B, Q) index of the object that each query is matched with, -1 for none. radii: (Q,) in which a query is
    matched, metres."""
    assigned = torch.full(used.shape, -1, dtype=torch.int64, device=logits.device)
    for sample, target in enumerate(targets):
        candidates = used[sample].nonzero().squeeze(1)
        cost = matching_cost(logits[sample, candidates], codes[sample, candidates], *target, config)
        forbidden = _distances(codes[sample, candidates], target.codes) > radii[candidates].unsqueeze(1)
        cost = cost.masked_fill(forbidden, _INCOMPARABLE)
        rows, columns = (torch.as_tensor(index) for index in linear_sum_assignment(cost.cpu().numpy()))
        allowed = ~forbidden.cpu()[rows, columns]
        assigned[sample, candidates[rows[allowed]]] = columns[allowed].to(logits.device)
    return assigned


def _radii(from_proposal: Tensor, config: BevLossConfig) -> Tensor:
    """(Q,) of queries, infinite where the configuration sets none."""
    proposal, learned = (
        math.inf if radius is None else radius for radius in (config.proposal_radius, config.learned_radius)
    )
    return torch.where(from_proposal, proposal, learned)


def matching_cost(logits: Tensor, codes: Tensor, targets: Tensor, labels: Tensor, config: BevLossConfig) -> Tensor:
    """Cost (Q, n) of giving a query an object, from logits (Q, K), codes (Q, 10), targets (n, 10), labels (n,).

    Class: focal loss with the object's class as a positive, less that as a negative. Box: smooth L1 (always with its
    threshold at 1), without velocity.
    """
    difference = F.smooth_l1_loss(
        codes[:, None, :_MATCHED_CODES].expand(-1, len(targets), -1),
        targets[None, :, :_MATCHED_CODES].expand(len(codes), -1, -1),
        reduction="none",
    ).sum(-1)
    cost = config.class_weight * _class_cost(logits, config.focal)[:, labels] + config.box_weight * difference
    return torch.nan_to_num(cost, nan=_INCOMPARABLE, posinf=_INCOMPARABLE, neginf=_INCOMPARABLE)


def _distances(codes: Tensor, targets: Tensor) -> Tensor:
    """On the ground (Q, n), metres."""
    return torch.cdist(codes[:, :2], targets[:, :2])


def _class_cost(logits: Tensor, config: FocalConfig) -> Tensor:
    """Focal loss of each class (Q, K) as a positive less that as a negative."""
    scores = logits.sigmoid()
    positive = -(scores + _MATCHING_EPSILON).log() * config.alpha * (1 - scores).pow(config.gamma)
    negative = -(1 - scores + _MATCHING_EPSILON).log() * (1 - config.alpha) * scores.pow(config.gamma)
    return positive - negative


def _group_loss(
    logits: Tensor,
    codes: Tensor,
    used: Tensor,
    assigned: Tensor,
    targets: Sequence[_Target],
    config: BevLossConfig,
) -> tuple[Tensor, Tensor]:
    """Class and box loss of one group of one layer, divided by the number of matched queries of the batch.

    An object with a target that is not finite (velocity unknown) has no box loss, but counts in the divisor.
    """
    sample, query = (assigned >= 0).nonzero(as_tuple=True)
    starts = torch.tensor([0, *(len(target.labels) for target in targets[:-1])], device=logits.device).cumsum(0)
    row = starts[sample] + assigned[sample, query]
    label = torch.cat([target.labels for target in targets])[row]
    code, target_code = codes[sample, query], torch.cat([target.codes for target in targets])[row]
    matched_count = max(len(row), 1)

    class_targets = torch.zeros_like(logits)
    class_targets[sample, query, label] = _quality(code, target_code, config)
    class_loss = focal_loss(logits[used], class_targets[used], config.focal).sum() / matched_count
    finite = target_code.isfinite().all(dim=-1)
    error = F.smooth_l1_loss(code[finite], target_code[finite], beta=config.box_beta, reduction="none")
    box_loss = (error * error.new_tensor(config.code_weights)).sum() / matched_count
    return config.class_weight * class_loss, config.box_weight * box_loss


def _quality(codes: Tensor, targets: Tensor, config: BevLossConfig) -> Tensor:
    """Class targets (n,) of matched boxes."""
    if config.quality_distance is None:
        return codes.new_ones(len(codes))
    distances = (codes[:, :2] - targets[:, :2]).detach().norm(dim=1)
    return (-distances / config.quality_distance).exp()
