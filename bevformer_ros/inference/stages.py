"""The two steps from uploaded images to boxes, as functions of tensors alone: run eagerly, or recorded (graphs.py).

A frame is encoded, stored, and its boxes are detected; before the last, time passes where a model wants future frames.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from bevformer_ros.inference.bev_buffer import BevBuffer, PastFrames
from bevformer_ros.inference.graphs import Mark
from bevformer_ros.model.box_coding import DecodedBoxes, decode_boxes
from bevformer_ros.model.network import BEVFormerV2
from bevformer_ros.model.proposals import Proposals


class Encoded(NamedTuple):
    """features: the levels that the BEV encoder reads, each (1, N, C, h, w). bev: (1, H*W, C)."""

    features: tuple[Tensor, ...]
    bev: Tensor
    proposals: Proposals | None


class DetectedBoxes(NamedTuple):
    """from_proposal: (Q,), for each of the decoder's queries."""

    boxes: DecodedBoxes
    from_proposal: Tensor


def encode(
    model: BEVFormerV2,
    mark: Mark,
    images: Tensor,
    camera_valid: Tensor,
    intrinsics: Tensor,
    camera_from_bev: Tensor,
    image_from_bev: Tensor,
) -> Encoded:
    """images (1, N, 3, H, W), camera_valid (1, N); matrices as the methods of BEVFormerV2 take them."""
    maps = model.backbone(images.flatten(0, 1))
    mark("backbone")
    features = tuple(level.unflatten(0, images.shape[:2]) for level in model.neck(maps))
    mark("neck")
    proposals = model.propose(features, intrinsics, camera_from_bev, camera_valid)
    if proposals is not None:
        mark("perspective")
    features = features[: model.config.encoder.image_levels]
    width, height = model.config.image.padded_size
    bev = model.encode_bev(features, image_from_bev, camera_valid, (height, width))
    mark("encoder")
    return Encoded(features, bev, proposals)


def detect(
    model: BEVFormerV2, buffer: BevBuffer, mark: Mark, bev: Tensor, past: PastFrames, proposals: Proposals | None
) -> DetectedBoxes:
    """bev: (1, H*W, C) of the current frame. past: from the buffer's plan for it."""
    bevs = buffer.align(bev, past)
    mark("buffer")
    fused = model.fuse(bevs)
    mark("fusion")
    output = model.decode(fused, proposals)
    config = model.config
    boxes = decode_boxes(
        output.class_logits[-1],
        output.box_codes[-1],
        config.max_detections,
        config.score_threshold,
        output.padding_mask,
    )
    mark("decoder")
    return DetectedBoxes(boxes, output.from_proposal)
