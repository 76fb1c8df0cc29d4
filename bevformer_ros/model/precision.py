"""The network in bfloat16 or float16, with float32 where the reference needs it.

Float32 stays: everything that becomes a position or a box (camera projection, reference points, sampling positions,
attention weights before they weigh, class and box branches of the decoder), object queries, and the statistics of
batch norm. All else, that is nearly all the arithmetic, runs in the reduced type.
"""

from __future__ import annotations

import torch
from torch import nn

from bevformer_ros.model.detector import BEVFormerV2

# Holds its own parameters in float32: normalisation statistics, and per-level scales of the perspective head.
_KEEPS_FLOAT32 = (nn.BatchNorm2d, nn.ParameterList)


def set_precision(detector: BEVFormerV2, dtype: torch.dtype) -> BEVFormerV2:
    """Cast the weights in place for inference; torch.float32 leaves them as they are."""
    reduced = (
        detector.backbone,
        detector.neck,
        detector.perspective_head,
        detector.bev_encoder,
        detector.temporal_fusion,
        detector.decoder.layers,
    )
    for part in reduced:
        for module in part.modules() if part is not None else ():
            if not isinstance(module, _KEEPS_FLOAT32):
                for parameter in module.parameters(recurse=False):
                    parameter.data = parameter.data.to(dtype)
    return detector
