"""Perspective boxes of all cameras, carried into the BEV frame and made one set (paper, section 3.3).

Shapes: B batch, N cameras, S boxes of an image, P proposals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bevformer_ros.model.config import PerspectiveHeadConfig, ProposalConfig
from bevformer_ros.model.footprints import footprint_iou
from bevformer_ros.model.perspective_boxes import (
    PerspectiveBoxes,
    PerspectiveDecoder,
    gather_slots,
    greedy_keep,
    rotate,
    same_label,
)
from bevformer_ros.model.perspective_head import ATTRIBUTES_PER_CLASS, PerspectiveLevel
from bevformer_ros.taxonomy import ATTRIBUTE_ID, CLASSES, NO_ATTRIBUTE

# Metres; the head's tanh can reach a size of zero, which is no box and has no logarithm.
_SMALLEST_SIZE = 0.01
_SMALLEST_WEIGHT = 1e-6


class Proposals(NamedTuple):
    """Boxes in the BEV frame, each (B, P, ...), best score first; slots where not `valid` hold unit boxes at 0.

    Fields as in types.Detections3D; cameras: index of the camera that saw the box.
    """

    centers: Tensor
    sizes: Tensor
    yaws: Tensor
    velocities: Tensor
    scores: Tensor
    labels: Tensor
    attributes: Tensor
    cameras: Tensor
    valid: Tensor

    def scaled(self, factors: Tensor) -> Proposals:
        """In a world that is larger by a factor (B,)."""
        larger = factors.view(-1, 1, 1)
        return self._replace(
            centers=self.centers * larger, sizes=self.sizes * larger, velocities=self.velocities * larger
        )


class ProposalMaker(nn.Module):
    """Decodes, carries into the BEV frame, suppresses and caps. Holds constants only, no parameters."""

    range_low: Tensor
    range_high: Tensor
    attribute_ids: Tensor

    def __init__(self, head: PerspectiveHeadConfig, config: ProposalConfig, detection_range: tuple[float, ...]) -> None:
        super().__init__()
        self.config = config
        self.decoder = PerspectiveDecoder(head, config)
        low, high = torch.tensor(detection_range).view(2, 3)
        self.register_buffer("range_low", low, persistent=False)
        self.register_buffer("range_high", high, persistent=False)
        self.register_buffer("attribute_ids", _attribute_ids(), persistent=False)

    def forward(
        self,
        levels: Sequence[PerspectiveLevel],
        intrinsics: Tensor,
        camera_from_bev: Tensor,
        camera_valid: Tensor | None = None,
        seen: Tensor | None = None,
    ) -> Proposals:
        """levels: for B*N images. intrinsics: (B, N, 3, 3) of the network input, that is after resize and crop.

        camera_from_bev: (B, N, 4, 4), each at its camera's own time. camera_valid: (B, N), False drops a camera. seen:
        (B, N, H, W) bool of the network input's pixels, False drops what is found at one.
        """
        boxes = self.decoder(levels, intrinsics.flatten(0, 1), None if seen is None else seen.flatten(0, 1))
        return self._select(self._into_bev(boxes, camera_from_bev, camera_valid))

    def _into_bev(self, boxes: PerspectiveBoxes, camera_from_bev: Tensor, camera_valid: Tensor | None) -> Proposals:
        """All boxes of a batch element, (B, N*S), neither sorted nor selected."""
        batch, cameras = camera_from_bev.shape[:2]
        bev_from_camera = camera_from_bev[..., :3, :3].float().transpose(-1, -2).unsqueeze(2)  # (B, N, 1, 3, 3)
        translation = camera_from_bev[..., :3, 3].float().unsqueeze(2)
        boxes = PerspectiveBoxes(*(values.unflatten(0, (batch, cameras)) for values in boxes))
        headings = rotate(bev_from_camera, boxes.rotations[..., 0])[..., :2]
        yaws = torch.atan2(headings[..., 1], headings[..., 0])
        directions = torch.stack([yaws.cos(), yaws.sin()], dim=-1)
        camera_indices = torch.arange(cameras, device=yaws.device).view(1, cameras, 1).expand_as(yaws)
        proposals = Proposals(
            centers=rotate(bev_from_camera, boxes.centers - translation),
            sizes=boxes.sizes.clamp(min=_SMALLEST_SIZE),
            yaws=yaws,
            velocities=directions * boxes.speeds.unsqueeze(-1),
            scores=boxes.scores,
            labels=boxes.labels,
            attributes=self.attribute_ids[boxes.labels, boxes.attributes],
            cameras=camera_indices,
            valid=boxes.valid if camera_valid is None else boxes.valid & camera_valid.unsqueeze(2),
        )
        return Proposals(*(values.flatten(1, 2) for values in proposals))

    def _select(self, boxes: Proposals) -> Proposals:
        inside = ((boxes.centers >= self.range_low) & (boxes.centers <= self.range_high)).all(dim=-1)
        valid = boxes.valid & inside & (boxes.scores >= self.config.minimum_score)
        order = torch.where(valid, boxes.scores, -1.0).argsort(dim=1, descending=True, stable=True)
        boxes = Proposals(*(gather_slots(values, order) for values in boxes._replace(valid=valid)))
        alike, places = same_label(boxes.labels), _places_in_footprints(boxes)
        if self.config.bev_nms_iou is None:
            covered = _in_footprint(places, boxes.sizes, self.config.bev_nms_margin)
        else:
            covered = footprint_iou(boxes.centers, boxes.sizes, boxes.yaws) > self.config.bev_nms_iou
        valid = greedy_keep(covered & alike, boxes.valid)
        if self.config.merge_margin is not None:
            near = _in_footprint(places, boxes.sizes, self.config.merge_margin) & alike & boxes.valid.unsqueeze(1)
            boxes = _merged(boxes, near)
        # A stable sort of the mask moves the survivors to the front and leaves them in order of score.
        slots = valid.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, : self.config.count]
        boxes = Proposals(*(gather_slots(values, slots) for values in boxes._replace(valid=valid)))
        return _blank_where_invalid(boxes)


def _places_in_footprints(boxes: Proposals) -> tuple[Tensor, Tensor]:
    """How far box j's centre lies from box i's, along and across box i: two of (B, S, S), in metres."""
    x, y = boxes.centers[..., :2].transpose(1, 2).contiguous().unbind(1)
    from_left, from_behind = (place.unsqueeze(1) - place.unsqueeze(2) for place in (x, y))
    cosines, sines = boxes.yaws.cos().unsqueeze(2), boxes.yaws.sin().unsqueeze(2)
    along = torch.addcmul(cosines * from_left, sines, from_behind)
    across = torch.addcmul(cosines * from_behind, sines, from_left, value=-1)
    return along.abs(), across.abs()


def _in_footprint(places: tuple[Tensor, Tensor], sizes: Tensor, margin: float) -> Tensor:
    """Whether box j's centre lies in box i's footprint grown by margin metres on each side, (B, S, S).

    For two equal boxes shifted along a side this is an IoU of 1/3 or more, which is about what DD3D suppresses across
    cameras; other than the IoU it needs no polygon clipping, and the margin keeps it useful for pedestrians and cones,
    which two cameras seldom place within their 0.5 m.
    """
    along, across = places
    half_lengths, half_widths = (sizes[:, :, None, :2] / 2 + margin).unbind(-1)
    return (along <= half_lengths) & (across <= half_widths)


def _merged(boxes: Proposals, near: Tensor) -> Proposals:
    """Each box i with the mean centre and size of itself and the boxes j that are near it (B, S, S)."""
    itself = torch.eye(near.shape[1], dtype=torch.bool, device=near.device)
    weights = torch.where(near | itself, boxes.scores.square().clamp(min=_SMALLEST_WEIGHT).unsqueeze(1), 0.0)
    values = torch.cat([boxes.centers.transpose(1, 2), boxes.sizes.log().transpose(1, 2)], dim=1)  # (B, 6, S)
    # Elementwise, out of reach of mixed precision.
    means = (weights.unsqueeze(1) * values.unsqueeze(2)).sum(dim=-1) / weights.sum(dim=-1).unsqueeze(1)
    centers, log_sizes = means.transpose(1, 2).split(3, dim=-1)
    return boxes._replace(centers=centers, sizes=log_sizes.exp())


def _blank_where_invalid(boxes: Proposals) -> Proposals:
    def blank(values: Tensor, filler: float) -> Tensor:
        mask = boxes.valid.view(*boxes.valid.shape, *(1 for _ in values.shape[2:]))
        return torch.where(mask, values, torch.full_like(values, filler))

    fillers = {"sizes": 1, "attributes": NO_ATTRIBUTE}
    fields = {name: blank(values, fillers.get(name, 0)) for name, values in boxes._asdict().items() if name != "valid"}
    return Proposals(**fields, valid=boxes.valid)


def _attribute_ids() -> Tensor:
    """(classes, 3): index into taxonomy.ATTRIBUTE_NAMES of each class's attributes."""
    rows = [[ATTRIBUTE_ID[name] for name in entry.attributes] for entry in CLASSES]
    return torch.tensor([row + [NO_ATTRIBUTE] * (ATTRIBUTES_PER_CLASS - len(row)) for row in rows])
