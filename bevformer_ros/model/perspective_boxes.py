"""From the perspective head's raw outputs to boxes in each camera's frame, with static shapes throughout.

Everything here is float32 and elementwise, so that automatic mixed precision cannot reach into the geometry.

Shapes: M images (batch x cameras), K classes, S candidates of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bevformer_ros.model.config import PerspectiveHeadConfig, ProposalConfig
from bevformer_ros.model.perspective_head import PerspectiveLevel

_TINY = 1e-7
# The longest chain met in 2590 random boxes at an overlap of 0.2 had 9 links; real thresholds make shorter ones.
_SUPPRESSION_ROUNDS = 16


class PerspectiveBoxes(NamedTuple):
    """Boxes in their camera's optical frame, each (M, S, ...); they mean something only where `valid`.

    boxes2d: left, top, right, bottom in pixels of the network input. scores2d: sqrt(class score * centerness).
    scores: scores2d * 3D confidence. attributes: index into the class's attributes. speeds: m/s. levels: of the
    feature map. locations: pixel (x, y) where the prediction was made. centers: metres. sizes: length, width, height.
    rotations: (3, 3) camera_from_object; the object's x runs along its length, z up.
    """

    boxes2d: Tensor
    scores2d: Tensor
    scores: Tensor
    labels: Tensor
    attributes: Tensor
    speeds: Tensor
    levels: Tensor
    locations: Tensor
    centers: Tensor
    sizes: Tensor
    rotations: Tensor
    valid: Tensor

    def take(self, slots: Tensor) -> PerspectiveBoxes:
        """The boxes in the slots (M, S')."""
        return PerspectiveBoxes(*(gather_slots(values, slots) for values in self))


class _Picked(NamedTuple):
    """Raw outputs at the best locations, each (M, S, ...), named and meant as in PerspectiveLevel.

    scores: class score * centerness, -1 where the location does not count.
    """

    scores: Tensor
    labels: Tensor
    levels: Tensor
    locations: Tensor
    box2d: Tensor
    attributes: Tensor
    speeds: Tensor
    quaternions: Tensor
    center_offsets: Tensor
    depths: Tensor
    sizes: Tensor
    confidences: Tensor

    def in_float32(self) -> _Picked:
        return _Picked(*(values.float() for values in self))._replace(labels=self.labels, levels=self.levels)


class PerspectiveDecoder(nn.Module):
    """Decodes and suppresses within each image. Holds constants only, no parameters."""

    canonical_sizes: Tensor

    def __init__(self, head: PerspectiveHeadConfig, proposals: ProposalConfig) -> None:
        super().__init__()
        self.head = head
        self.proposals = proposals
        self.register_buffer("canonical_sizes", torch.tensor(head.canonical_sizes), persistent=False)

    def forward(
        self, levels: Sequence[PerspectiveLevel], intrinsics: Tensor, seen: Tensor | None = None
    ) -> PerspectiveBoxes:
        """At most boxes_per_image boxes of each image.

        intrinsics: (M, 3, 3) of the network input, upper triangular. seen: (M, H, W) bool of its pixels, False where no
        location counts.
        """
        return self.suppress(self.candidates(levels, intrinsics, seen))

    def candidates(
        self, levels: Sequence[PerspectiveLevel], intrinsics: Tensor, seen: Tensor | None = None
    ) -> PerspectiveBoxes:
        """The best locations of each level that pass the score threshold, decoded."""
        first = len(self.head.strides) - len(levels)
        picked = [self._pick(outputs, first + index, seen) for index, outputs in enumerate(levels)]
        joined = _Picked(*(torch.cat(values, dim=1) for values in zip(*picked, strict=True)))
        return self._decode(joined.in_float32(), intrinsics)

    def suppress(self, boxes: PerspectiveBoxes) -> PerspectiveBoxes:
        """Class-wise non-maximum suppression of 2D boxes by 3D score; of the rest the best 2D scores, best 3D first."""
        order = torch.where(boxes.valid, boxes.scores, -1.0).argsort(dim=1, descending=True, stable=True)
        boxes2d, scores2d, labels, valid = (
            gather_slots(values, order) for values in (boxes.boxes2d, boxes.scores2d, boxes.labels, boxes.valid)
        )
        keep = greedy_keep(overlaps(boxes2d, self.proposals.image_nms_iou) & same_label(labels), valid)
        count = min(self.proposals.boxes_per_image, keep.shape[1])
        slots = torch.where(keep, scores2d, -1.0).topk(count, dim=1).indices.sort(dim=1).values
        return boxes.take(order.gather(1, slots))._replace(valid=keep.gather(1, slots))

    def _pick(self, outputs: PerspectiveLevel, level: int, seen: Tensor | None) -> _Picked:
        images, classes, _, width = outputs.class_logits.shape
        stride = self.head.strides[level]
        class_scores = outputs.class_logits.float().sigmoid()
        joint_scores = class_scores * outputs.centerness.float().sigmoid()
        tested = joint_scores if self.proposals.threshold_with_centerness else class_scores
        scores = torch.where(tested > self.proposals.score_threshold, joint_scores, -1.0)
        if seen is not None:
            scores = torch.where(seen[:, None, ::stride, ::stride], scores, -1.0)
        scores = scores.flatten(1)  # (M, K*h*w)
        scores, indices = scores.topk(min(self.proposals.candidates_per_level, scores.shape[1]), dim=1)
        pixels = outputs.class_logits[0, 0].numel()
        labels, cells = indices.div(pixels, rounding_mode="floor"), indices.remainder(pixels)
        rows, columns = cells.div(width, rounding_mode="floor"), cells.remainder(width)
        image = torch.arange(images, device=cells.device).unsqueeze(1)

        def at_cell(values: Tensor) -> Tensor:
            """(M, components, h, w) -> (M, S, components)."""
            return values[image, :, rows, columns]

        def at_class(values: Tensor) -> Tensor:
            """(M, components * K, h, w) -> (M, S, components)."""
            return values.unflatten(1, (-1, classes))[image, :, labels, rows, columns]

        return _Picked(
            scores=scores,
            labels=labels,
            levels=torch.full_like(labels, level),
            locations=torch.stack([columns, rows], dim=-1) * stride,
            box2d=at_cell(outputs.box2d),
            attributes=at_cell(outputs.attributes),
            speeds=at_cell(outputs.speeds)[..., 0],
            quaternions=at_class(outputs.quaternions),
            center_offsets=at_class(outputs.center_offsets),
            depths=at_class(outputs.depths)[..., 0],
            sizes=at_class(outputs.sizes),
            confidences=at_class(outputs.confidences)[..., 0],
        )

    def _decode(self, picked: _Picked, intrinsics: Tensor) -> PerspectiveBoxes:
        centers, sizes, rotations = decode_boxes3d(
            picked.quaternions,
            picked.center_offsets,
            picked.depths,
            picked.sizes,
            picked.locations,
            inverse_intrinsics(intrinsics.float())[:, None],
            self.canonical_sizes[picked.labels],
            self.head,
        )
        scores2d = picked.scores.clamp(min=_TINY).sqrt()
        corners = (picked.locations - picked.box2d[..., :2], picked.locations + picked.box2d[..., 2:])
        return PerspectiveBoxes(
            boxes2d=torch.cat(corners, dim=-1),
            scores2d=scores2d,
            scores=scores2d * picked.confidences.sigmoid(),
            labels=picked.labels,
            attributes=picked.attributes.argmax(dim=-1),
            speeds=picked.speeds,
            levels=picked.levels,
            locations=picked.locations,
            centers=centers,
            sizes=sizes,
            rotations=rotations,
            valid=picked.scores > 0,
        )


def decode_boxes3d(
    quaternions: Tensor,
    center_offsets: Tensor,
    depths: Tensor,
    sizes: Tensor,
    locations: Tensor,
    inverse: Tensor,
    canonical_sizes: Tensor,
    config: PerspectiveHeadConfig,
) -> tuple[Tensor, Tensor, Tensor]:
    """Centres (..., 3), sizes (..., 3) and rotations (..., 3, 3) in the camera frame from raw outputs.

    quaternions (..., 4), center_offsets (..., 2), depths (...), sizes (..., 3) as in PerspectiveLevel, for one class;
    locations (..., 2) pixels; inverse intrinsics, broadcast against (..., 3, 3); canonical_sizes (..., 3) l, w, h.
    """
    pixels = locations + center_offsets
    rays = rotate(inverse, torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=-1))
    pixel_size = (inverse[..., 0, 0].square() + inverse[..., 1, 1].square()).sqrt()  # hypot, which ONNX lacks
    depths = (depths / (pixel_size * config.reference_focal_length)).clamp(*config.depth_range)
    local = matrix_from_quaternion(quaternions / quaternions.norm(dim=-1, keepdim=True).clamp(min=_TINY))
    width, length, height = sizes.unbind(-1)
    sizes = (torch.stack([length, width, height], dim=-1).tanh() + 1) * canonical_sizes
    return rays * depths[..., None], sizes, compose(ray_frames(rays), local)


def ray_frames(rays: Tensor) -> Tensor:
    """Rotations (..., 3, 3) camera_from_ray: z along the ray (..., 3), x level in the image, y downwards."""
    z = rays / rays.norm(dim=-1, keepdim=True)
    x = torch.stack([z[..., 2], torch.zeros_like(z[..., 0]), -z[..., 0]], dim=-1)
    x = x / x.norm(dim=-1, keepdim=True)
    return torch.stack([x, torch.linalg.cross(z, x), z], dim=-1)


def matrix_from_quaternion(quaternions: Tensor) -> Tensor:
    """Rotations (..., 3, 3) of unit quaternions (..., 4), real part first; a zero quaternion gives the identity."""
    (w, x, y, z), axis = quaternions.unbind(-1), quaternions[..., 1:]
    zero, identity = torch.zeros_like(w), torch.eye(3, dtype=w.dtype, device=w.device)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    outer = axis.unsqueeze(-1) * axis.unsqueeze(-2)
    squared = axis.square().sum(dim=-1)[..., None, None]
    return identity + 2 * (w[..., None, None] * cross + outer - squared * identity)  # by Rodrigues


def inverse_intrinsics(intrinsics: Tensor) -> Tensor:
    """Inverse (M, 3, 3) of upper triangular intrinsics with last row 0 0 1; written out, so capturable in a graph."""
    fx, skew, cx = intrinsics[:, 0].unbind(-1)
    fy, cy = intrinsics[:, 1, 1], intrinsics[:, 1, 2]
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    rows = [
        [1 / fx, -skew / (fx * fy), (skew * cy / fy - cx) / fx],
        [zero, 1 / fy, -cy / fy],
        [zero, zero, one],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def rotate(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Matrices (..., 3, 3) times vectors (..., 3), in the precision of its input."""
    return (matrices * vectors.unsqueeze(-2)).sum(dim=-1)


def compose(left: Tensor, right: Tensor) -> Tensor:
    """Product of matrices (..., 3, 3), in the precision of its input."""
    return (left.unsqueeze(-1) * right.unsqueeze(-3)).sum(dim=-2)


def greedy_keep(suppresses: Tensor, valid: Tensor) -> Tensor:
    """Which boxes (M, S) survive greedy suppression, given whether box i would drop box j (M, S, S); best box first.

    A box stays if no better box that stays drops it: a fixed point, reached without asking the host. Every round
    settles one more link of each chain in which a box drops the next; exact for chains of up to _SUPPRESSION_ROUNDS.
    """
    later = suppresses.triu(diagonal=1).float()
    candidates = valid.float().unsqueeze(1)
    keep = candidates
    for _ in range(_SUPPRESSION_ROUNDS):
        before, keep = keep, (keep @ later).lt_(candidates)  # valid, and dropped by none
        if _settled(before, keep):
            break
    return keep.squeeze(1).bool()


def _settled(before: Tensor, after: Tensor) -> bool:
    """Only the CPU is asked, as it has the answer at hand; a graph and an exported network have no ifs."""
    return after.device.type == "cpu" and not torch.compiler.is_compiling() and torch.equal(before, after)


def same_label(labels: Tensor) -> Tensor:
    return labels.unsqueeze(2) == labels.unsqueeze(1)


def overlaps(boxes: Tensor, iou: float) -> Tensor:
    """Which 2D boxes (M, S, 4) have a larger intersection over union: (M, S, S). Boxes without area overlap none."""
    left, top, right, bottom = boxes.transpose(1, 2).contiguous().unbind(1)  # each without gaps, which is faster
    # Of two boxes i / (a + b - i) > iou, without a division.
    share = iou / (1 + iou) * (right - left) * (bottom - top)
    intersection = _pairwise_overlap(left, right).clamp_(min=0).mul_(_pairwise_overlap(top, bottom))
    return intersection > share.unsqueeze(2) + share.unsqueeze(1)


def _pairwise_overlap(low: Tensor, high: Tensor) -> Tensor:
    """Length (M, S, S) that intervals (M, S) share; how far they lie apart, negative, where they share none."""
    starts = torch.maximum(low.unsqueeze(2), low.unsqueeze(1))
    return torch.minimum(high.unsqueeze(2), high.unsqueeze(1)).sub_(starts)


def gather_slots(values: Tensor, slots: Tensor) -> Tensor:
    """Values (M, S, ...) in the slots (M, S')."""
    tail = values.shape[2:]
    return values.gather(1, slots.view(*slots.shape, *(1 for _ in tail)).expand(*slots.shape, *tail))
