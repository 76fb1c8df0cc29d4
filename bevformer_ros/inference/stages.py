"""The second half of the forward pass, from the history to boxes, as a function of tensors: run eagerly, or recorded
(graphs.py). The first half is BEVFormerV2.encode; in between the frame is stored, and time passes where a model wants
future frames.
"""

from __future__ import annotations

from torch import Tensor

from bevformer_ros.inference.bev_buffer import BevBuffer, PastFrames
from bevformer_ros.inference.packing import Packed, pack
from bevformer_ros.model.box_coding import decode_boxes
from bevformer_ros.model.network import BEVFormerV2
from bevformer_ros.model.proposals import Proposals
from bevformer_ros.stage_clock import Mark, unmarked


def detect(
    network: BEVFormerV2,
    buffer: BevBuffer,
    bev: Tensor,
    past: PastFrames,
    proposals: Proposals | None,
    mark: Mark = unmarked,
) -> Packed:
    """What results.HostBoxes holds and, of proposals, results.HostProposals. bev: (1, H*W, C) of the current frame.
    past: what the buffer recalls for it."""
    bevs = buffer.align(bev, past)
    mark("buffer")
    output = network.detect(bevs, proposals, mark)
    config = network.config
    decoded = decode_boxes(
        output.class_logits[-1],
        output.box_codes[-1],
        config.max_detections,
        config.score_threshold,
        output.padding_mask,
    )
    boxes = (*decoded.boxes, decoded.scores, decoded.labels, decoded.query, decoded.valid, output.from_proposal)
    return pack((*boxes, *(proposals or ())))
