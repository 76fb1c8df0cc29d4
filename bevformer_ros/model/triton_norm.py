"""Layer norm of a sum as one Triton kernel; see `fused_operators.add_norm`. Importing this module needs Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 2048  # channels of a few rows that a program has in hand


def add_norm_in_one(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """(..., C); sums and statistics in float32. On the CPU it runs in Triton's interpreter only, for tests."""
    x, residual = x.contiguous(), residual.expand(x.shape).contiguous()
    output = torch.empty_like(x)
    channels = x.shape[-1]
    rows = x.numel() // channels
    if rows == 0:
        return output
    block_channels = triton.next_power_of_2(channels)
    block_rows = max(1, _BLOCK // block_channels)
    with torch.cuda.device_of(x):
        _add_norm[(triton.cdiv(rows, block_rows),)](
            x,
            residual,
            weight,
            bias,
            output,
            rows,
            EPSILON=epsilon,
            CHANNELS=channels,
            BLOCK_ROWS=block_rows,
            BLOCK_CHANNELS=block_channels,
        )
    return output


@triton.jit
def _add_norm(
    x,
    residual,
    weight,
    bias,
    output,
    rows,
    EPSILON: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    row = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    channel = tl.arange(0, BLOCK_CHANNELS)
    inside = (row < rows)[:, None] & (channel < CHANNELS)
    place = row[:, None].to(tl.int64) * CHANNELS + channel
    total = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    total += tl.load(residual + place, mask=inside, other=0.0).to(tl.float32)
    centred = tl.where(inside, total - (tl.sum(total, axis=1) / CHANNELS)[:, None], 0.0)
    variance = tl.sum(centred * centred, axis=1) / CHANNELS
    scale = tl.load(weight + channel, mask=channel < CHANNELS, other=0.0).to(tl.float32)
    shift = tl.load(bias + channel, mask=channel < CHANNELS, other=0.0).to(tl.float32)
    result = centred * tl.rsqrt(variance + EPSILON)[:, None] * scale + shift
    tl.store(output + place, result.to(output.dtype.element_ty), mask=inside)
