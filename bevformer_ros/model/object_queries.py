"""Object queries of the decoder: learned per data set, and made per image from perspective proposals.

Paper, sections 3.3 and 3.5: the reference points learned from position embeddings stay the same for every image;
the BEV centres of the perspective head's boxes join them as reference points of this very image.

Shapes: B batch, G groups (group-DETR; 1 outside training), Q learned queries of a group, P proposals, C channels.
Queries of several groups lie one group after the other; every group holds its Q learned, then all P proposals.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bevformer_ros.model.box_coding import codes_without_place
from bevformer_ros.model.config import ProposalConfig
from bevformer_ros.model.proposals import Proposals

PRIOR_PROBABILITY = 0.01  # of a class at a query that says nothing yet
PRIOR_LOGIT = -math.log(1 / PRIOR_PROBABILITY - 1)
_OCTAVES = 8
_SCORE_EPSILON = 1e-6


class QueryBase(NamedTuple):
    """class_logits: (B, G*(Q+P), K). codes: (B, G*(Q+P), 10) box codes of all but the centre. Detached."""

    class_logits: Tensor
    codes: Tensor


class ObjectQueries(NamedTuple):
    """What the decoder starts from.

    content, position: (B, G*(Q+P), C). reference_points: (B, G*(Q+P), 3), normalised to the detection range.
    padding_mask: (B, G*(Q+P)) True where a query is to be ignored; None if all count.
    from_proposal: (G*(Q+P),) True where the query is a perspective proposal. groups: G.
    base: what each box starts from; None where it starts from its reference point alone.
    """

    content: Tensor
    position: Tensor
    reference_points: Tensor
    padding_mask: Tensor | None
    from_proposal: Tensor
    groups: int
    base: QueryBase | None = None


class LearnedQueries(nn.Module):
    """Queries that are parameters: one embedding, half position and half content, as in the released models.

    In training all groups are used, otherwise only the first.
    """

    def __init__(self, count: int, channels: int, groups: int) -> None:
        super().__init__()
        self.count = count
        self.groups = groups
        self.embedding = nn.Embedding(count * groups, 2 * channels)
        self.reference_points = nn.Linear(channels, 3)
        # So that the points of random embeddings cover the whole range from the start.
        nn.init.xavier_uniform_(self.reference_points.weight)
        nn.init.zeros_(self.reference_points.bias)

    def forward(self, batch_size: int) -> ObjectQueries:
        groups = self.groups if self.training else 1
        embedding = self.embedding.weight[: self.count * groups].expand(batch_size, -1, -1)
        position, content = embedding.chunk(2, dim=-1)
        # Elementwise, out of reach of mixed precision: rounded to bfloat16 a point would be up to 0.2 m off.
        logits = (position.unsqueeze(-2) * self.reference_points.weight).sum(dim=-1) + self.reference_points.bias
        return ObjectQueries(
            content=content,
            position=position,
            reference_points=logits.sigmoid(),
            padding_mask=None,
            from_proposal=torch.zeros(embedding.shape[1], dtype=torch.bool, device=embedding.device),
            groups=groups,
        )


class ProposalQueries(nn.Module):
    """Queries at the proposals' BEV centres.

    content "learned": one embedding shared by all proposals, since a slot number means nothing and the decoder
    must not care in which order proposals come. "enriched": the same plus an embedding of the proposal's class
    and of its score, size and heading.

    Gradient: reference points (and the position made from them) are detached, as between decoder layers, because
    the first stage has its own dense loss and moving a sampling point is a poor teacher for it. With enriched
    content the decoder's loss reaches the perspective head through score, size and heading; with learned content
    it does not reach it through the queries at all.
    """

    range_low: Tensor
    range_extent: Tensor

    def __init__(self, channels: int, classes: int, config: ProposalConfig, detection_range: tuple[float, ...]) -> None:
        super().__init__()
        self.classes, self.residual, self.join_scores = classes, config.residual, config.join_scores
        self.content = nn.Parameter(torch.randn(channels))
        self.position = _two_layers(3 * 2 * _OCTAVES, channels)
        self.class_embedding = nn.Embedding(classes, channels) if config.query_content == "enriched" else None
        self.box_embedding = _two_layers(6, channels) if config.query_content == "enriched" else None
        low, high = torch.tensor(detection_range).view(2, 3)
        self.register_buffer("range_low", low, persistent=False)
        self.register_buffer("range_extent", high - low, persistent=False)

    def forward(self, proposals: Proposals) -> ObjectQueries:
        """Queries (B, P, ...) of one group, padded where the proposals are."""
        reference_points = ((proposals.centers - self.range_low) / self.range_extent).detach()
        content = self.content.expand(*proposals.scores.shape, -1)
        if self.class_embedding is not None and self.box_embedding is not None:
            content = content + self.class_embedding(proposals.labels) + self.box_embedding(_box_features(proposals))
        return ObjectQueries(
            content=content,
            position=self.position(_sinusoidal_embedding(reference_points)),
            reference_points=reference_points,
            padding_mask=~proposals.valid,
            from_proposal=torch.ones(content.shape[1], dtype=torch.bool, device=content.device),
            groups=1,
            base=_base(proposals, self.classes) if self.residual else None,
        )


def _base(proposals: Proposals, classes: int) -> QueryBase:
    """The proposal's score for its own class, the prior for all others."""
    logits = torch.logit(proposals.scores.detach().clamp(PRIOR_PROBABILITY, 1 - PRIOR_PROBABILITY))
    own = proposals.labels.unsqueeze(-1) == torch.arange(classes, device=logits.device)
    shape = (proposals.sizes, proposals.yaws, proposals.velocities)
    codes = codes_without_place(*(values.detach() for values in shape))
    return QueryBase(torch.where(own, logits.unsqueeze(-1), PRIOR_LOGIT), codes)


def join_queries(learned: ObjectQueries, proposals: ObjectQueries) -> ObjectQueries:
    """Hybrid queries: the proposals join each group of the learned ones."""
    assert proposals.padding_mask is not None
    groups = learned.groups

    def join(first: Tensor, second: Tensor) -> Tensor:
        first = first.unflatten(1, (groups, -1))  # (B, G, Q, ...)
        second = second.unsqueeze(1).expand(-1, groups, *second.shape[1:])  # (B, G, P, ...)
        return torch.cat([first, second], dim=2).flatten(1, 2)

    base = None
    if proposals.base is not None:
        shape = learned.content.shape[:2]
        logits, codes = proposals.base
        base = QueryBase(
            join(logits.new_full((*shape, logits.shape[-1]), PRIOR_LOGIT), logits),
            join(codes.new_zeros(*shape, codes.shape[-1]), codes),
        )
    never_padded = learned.content.new_zeros(learned.content.shape[:2], dtype=torch.bool)
    return ObjectQueries(
        content=join(learned.content, proposals.content),
        position=join(learned.position, proposals.position),
        reference_points=join(learned.reference_points, proposals.reference_points),
        padding_mask=join(never_padded, proposals.padding_mask),
        from_proposal=join(learned.from_proposal[None], proposals.from_proposal[None])[0],
        groups=groups,
        base=base,
    )


def joined_logits(class_logits: Tensor, proposals: Proposals) -> Tensor:
    """Class logits (L, B, G*(Q+P), K) of the decoder, where those of the P proposal queries become logits of the
    geometric mean of their score and the proposal's own: it tells how well a box is placed, which a focal loss on
    classes never asks the decoder for."""
    count = proposals.scores.shape[1]
    own, decoder = proposals.scores.unsqueeze(-1), class_logits[:, :, -count:].sigmoid()
    joined = torch.logit((decoder * own).sqrt(), eps=_SCORE_EPSILON)
    return torch.cat([class_logits[:, :, :-count], joined], dim=2)


def _two_layers(inputs: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, channels), nn.ReLU(), nn.Linear(channels, channels))


def _sinusoidal_embedding(points: Tensor) -> Tensor:
    """Sines and cosines (..., 48) of normalised points (..., 3), from one wave over the range to 128 (0.8 m)."""
    frequencies = 2 * math.pi * 2.0 ** torch.arange(_OCTAVES, dtype=points.dtype, device=points.device)
    phases = points.unsqueeze(-1) * frequencies
    return torch.cat([phases.sin(), phases.cos()], dim=-1).flatten(-2)


def _box_features(proposals: Proposals) -> Tensor:
    """(B, P, 6): score, logarithm of length, width, height, cosine and sine of the heading."""
    heading = torch.stack([proposals.yaws.cos(), proposals.yaws.sin()], dim=-1)
    return torch.cat([proposals.scores.unsqueeze(-1), proposals.sizes.log(), heading], dim=-1)
