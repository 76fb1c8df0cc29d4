"""Deformable attention as one node for TensorRT's MultiscaleDeformableAttnPlugin_TRT, in graphs that are exported.

Shapes: B batch, N images that a query may look into (cameras, or one BEV map), S cells of all levels of an image,
H heads, D channels of a head, C = H*D, Q queries, L levels, P points per head and level, Z reference points.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from bevformer_ros.model.attention.torch_sampling import LevelShapes, View

# In the domain in which ONNX Runtime looks for plugins; TensorRT's own parser goes by the name alone.
NODE = "trt.plugins::MultiscaleDeformableAttnPlugin_TRT"


def plugin_attention(value: Tensor, level_shapes: LevelShapes, offsets: Tensor, weights: Tensor, view: View) -> Tensor:
    """As `deformable_attention`, in the graph of torch.onnx.export alone: run by torch it gives zeros.

    The node takes value (B, S, H, D), the levels' heights and widths (L, 2) and starts in S (L,), locations
    (B, Q, H, L, P, 2) x, y in 0..1 of the level, and weights (B, Q, H, L, P); it gives (B, Q, H, D). The levels of all
    images are levels of one to it, so that it sums over the images as well. With the images in its batch, N times
    the output would be written, to be read and summed after it.
    """
    batch, images, _, heads, channels = value.shape
    queries, points, anchors = offsets.shape[1], offsets.shape[-1], view.reference_points.shape[3]
    references = view.reference_points.transpose(1, 2).repeat(1, 1, 1, points // anchors, 1)  # (B, Q, N, P, 2)
    sizes = torch.tensor([(width, height) for height, width in level_shapes], dtype=torch.float32)
    relative = offsets.float().permute(0, 1, 3, 4, 5, 2) / sizes.unsqueeze(1)  # (B, Q, H, L, P, 2)
    share = view.share.transpose(1, 2)[:, :, None, :, None, None]  # (B, Q, 1, N, 1, 1)
    all_shapes = level_shapes * images
    starts = itertools.accumulate((height * width for height, width in all_shapes[:-1]), initial=0)
    attended = torch.onnx.ops.symbolic(
        NODE,
        (
            value.flatten(1, 2),
            torch.tensor(all_shapes, dtype=torch.int32),
            torch.tensor(list(starts), dtype=torch.int32),
            (references[:, :, None, :, None] + relative.unsqueeze(3)).flatten(3, 4),  # (B, Q, H, N*L, P, 2)
            (weights.float().unsqueeze(3) * share).flatten(3, 4),  # (B, Q, H, N*L, P)
        ),
        {"plugin_version": "1", "plugin_namespace": ""},
        dtype=value.dtype,
        shape=(batch, queries, heads, channels),
        version=1,
    )
    return attended.flatten(2)
