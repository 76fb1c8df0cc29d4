"""Operators for onnx.reference, above all TensorRT's MultiscaleDeformableAttnPlugin_TRT as its sources describe it.

Shapes: B batch, S cells of all levels, H heads, D channels of a head, Q queries, L levels, P points.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun

Array = NDArray[Any]


class MultiscaleDeformableAttnPlugin_TRT(OpRun):  # noqa: N801  its name is how the node finds it
    op_domain = "trt.plugins"

    def _run(
        self,
        value: Array,
        spatial_shapes: Array,
        level_start_index: Array,
        sampling_locations: Array,
        attention_weights: Array,
        plugin_version: str | None = None,
        plugin_namespace: str | None = None,
    ) -> tuple[Array]:
        """value (B, S, H, D), shapes (L, 2), starts (L,), locations (B, Q, H, L, P, 2), weights (B, Q, H, L, P)."""
        assert (plugin_version, plugin_namespace) == ("1", "")
        assert spatial_shapes.dtype == level_start_index.dtype == np.int32
        assert value.dtype == sampling_locations.dtype == attention_weights.dtype == np.float32
        batch, cells, heads, channels = value.shape
        queries, levels, points = attention_weights.shape[1], *attention_weights.shape[3:]
        assert sampling_locations.shape == (batch, queries, heads, levels, points, 2)
        assert attention_weights.shape == (batch, queries, heads, levels, points)
        assert spatial_shapes.shape == (levels, 2)
        assert level_start_index[-1] + spatial_shapes[-1].prod() == cells
        total = np.zeros((batch, queries, heads, channels), np.float32)
        for level, ((height, width), start) in enumerate(zip(spatial_shapes, level_start_index, strict=True)):
            image = value[:, start : start + height * width]
            x = sampling_locations[:, :, :, level, :, 0] * width - 0.5
            y = sampling_locations[:, :, :, level, :, 1] * height - 0.5
            total += _bilinear(image, height, width, x, y, attention_weights[:, :, :, level])
        return (total,)


class GatherElements(OpRun):
    """ONNX's own evaluator gathers by numpy.choose, from 64 arrays at most."""

    def _run(self, data: Array, indices: Array, axis: int = 0) -> tuple[Array]:
        return (np.take_along_axis(data, indices, axis),)


def _bilinear(image: Array, height: int, width: int, x: Array, y: Array, weights: Array) -> Array:
    """(B, Q, H, D) from image (B, height*width, H, D) at x, y (B, Q, H, P); what is outside counts as zero."""
    near = (x > -1) & (x < width) & (y > -1) & (y < height)
    x, y = np.where(near, x, -1), np.where(near, y, -1)
    batch, head = np.arange(len(image))[:, None, None, None], np.arange(image.shape[2])[None, None, :, None]
    total = np.zeros((*x.shape, image.shape[-1]), np.float32)
    for column in (np.floor(x), np.floor(x) + 1):
        for row in (np.floor(y), np.floor(y) + 1):
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            cell = np.where(inside, row * width + column, 0).astype(np.int64)
            share = (1 - abs(x - column)) * (1 - abs(y - row)) * inside * weights
            total += image[batch, cell, head] * share[..., None]
    return total.sum(axis=3)
