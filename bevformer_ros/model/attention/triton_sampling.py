"""Deformable attention as one Triton kernel for all images, forward and backward; see `deformable_attention`.

A program takes a block of queries and one head, goes through the images and skips those that none of its queries
looks into. Nothing is written but the sum over the images. Shapes depend on no data and no host waits, so the kernel
can be captured in a CUDA graph (after one call that compiles it).

Importing this module needs Triton.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from bevformer_ros.model.attention.torch_sampling import LevelShapes, View

# Queries times points times channels that a program has in hand at once, and its warps: within a single one, numbers
# change threads without a barrier. Compiled for sm_90 at full size, a thread needs about 100 registers forward, and 128
# to 161 backward; no speed has been measured yet.
FORWARD_BLOCK, FORWARD_WARPS = 1024, 1
BACKWARD_BLOCK, BACKWARD_WARPS = 1024, 4


def fused_deformable_attention(
    value: Tensor, level_shapes: LevelShapes, offsets: Tensor, weights: Tensor, view: View
) -> Tensor:
    """See `deformable_attention`. On the CPU it runs in Triton's interpreter only, for tests."""
    if value.shape[1] > 1 and view.reference_points.requires_grad:
        raise ValueError(
            f"reference points in several images ({value.shape[1]}) get no gradient; detach them, or let each query "
            "look into one image"
        )
    return _FusedDeformableAttention.apply(value, level_shapes, offsets, weights, *view)


def attend(
    value: Tensor,
    samples: Tensor,
    constant: Tensor | None,
    reference_points: Tensor,
    share: Tensor,
    level_shapes: LevelShapes,
    sets: int,
) -> Tensor:
    """`DeformableAttention` between its projections, for inference: softmax and sums of constants in the same kernel.

    samples: (B, Q, 3, H, L, P) x and y of offsets, and what becomes weights by a softmax over each of `sets` sets of
    an equal number of points. constant: (Q, 3, H, L, P) to be added to that, or None.
    """
    value, samples, reference_points, share = (x.contiguous() for x in (value, samples, reference_points, share))
    output = value.new_empty(*samples.shape[:2], value.shape[3] * value.shape[4])
    tensors = [value, samples[:, :, :2], samples[:, :, 2], reference_points, share]
    row = samples[0, :1].numel()
    options = {"OFFSETS_ROW": row, "WEIGHTS_ROW": row, "SETS": sets, "HAS_CONSTANT": constant is not None}
    options["BLOCK_SAMPLES"] = triton.next_power_of_2(samples[0, 0, 0, 0].numel())
    extra = output if constant is None else constant.contiguous()
    _launch(_sum_samples, FORWARD_BLOCK, FORWARD_WARPS, tensors, level_shapes, [output, extra], options)
    return output


class _FusedDeformableAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        value: Tensor,
        level_shapes: LevelShapes,
        offsets: Tensor,
        weights: Tensor,
        reference_points: Tensor,
        share: Tensor,
    ) -> Tensor:
        tensors = [tensor.contiguous() for tensor in (value, offsets, weights, reference_points, share)]
        ctx.save_for_backward(*tensors)
        ctx.level_shapes = level_shapes
        output = value.new_empty(*weights.shape[:2], value.shape[3] * value.shape[4])
        row = weights[0, :1].numel()
        options = {"OFFSETS_ROW": 2 * row, "WEIGHTS_ROW": row, "SETS": 0, "HAS_CONSTANT": False, "BLOCK_SAMPLES": 1}
        _launch(_sum_samples, FORWARD_BLOCK, FORWARD_WARPS, tensors, level_shapes, [output, output], options)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, output_gradient: Tensor) -> tuple[Tensor | None, ...]:
        tensors = list(ctx.saved_tensors)
        value, offsets, weights, reference_points, _ = tensors
        # Many samples add to one cell, in any order: float32, or small ones would be lost.
        value_gradient = torch.zeros_like(value, dtype=torch.float32)
        offsets_gradient = torch.empty_like(offsets, dtype=torch.float32)
        weights_gradient = torch.empty_like(weights, dtype=torch.float32)
        gradients = [output_gradient.contiguous(), value_gradient, offsets_gradient, weights_gradient]
        _launch(_differentiate, BACKWARD_BLOCK, BACKWARD_WARPS, tensors, ctx.level_shapes, gradients, {})
        references_gradient = None
        if ctx.needs_input_grad[4]:
            references_gradient = _gradient_of_reference_points(
                offsets_gradient, ctx.level_shapes, reference_points.shape[3]
            )
        return (
            value_gradient.to(value.dtype),
            None,
            offsets_gradient.to(offsets.dtype),
            weights_gradient.to(weights.dtype),
            references_gradient,
            None,
        )


def _gradient_of_reference_points(offsets_gradient: Tensor, level_shapes: LevelShapes, anchors: int) -> Tensor:
    """(B, 1, Q, Z, 2): moving a point by one moves all its samples of a level by the level's size in cells."""
    by_anchor = offsets_gradient.sum(dim=3).unflatten(-1, (-1, anchors)).sum(dim=-2)  # (B, Q, 2, L, Z)
    total = torch.zeros_like(by_anchor[:, :, :, 0])
    for level, (height, width) in enumerate(level_shapes):
        total += by_anchor[:, :, :, level] * by_anchor.new_tensor([[width], [height]])
    return total.transpose(2, 3).unsqueeze(1)


def _launch(
    kernel: Any,
    block: int,
    warps: int,
    tensors: list[Tensor],
    level_shapes: LevelShapes,
    results: list[Tensor],
    options: dict[str, int],
) -> None:
    """tensors: value, offsets, weights, reference points and share. options: the kernel's own constants."""
    batch, images, cells, heads, channels = tensors[0].shape
    queries, points, anchors = tensors[2].shape[1], tensors[2].shape[-1], tensors[3].shape[3]
    block_points, block_channels = triton.next_power_of_2(points), triton.next_power_of_2(channels)
    block_queries = max(1, block // (block_points * block_channels))
    if queries == 0:
        return
    heights, widths = zip(*level_shapes, strict=True)
    starts = tuple(itertools.accumulate((height * width for height, width in level_shapes[:-1]), initial=0))
    with torch.cuda.device_of(tensors[0]):
        kernel[(triton.cdiv(queries, block_queries), heads, batch)](
            *tensors,
            *results,
            images,
            queries,
            cells,
            HEIGHTS=heights,
            WIDTHS=widths,
            STARTS=starts,
            HEADS=heads,
            CHANNELS=channels,
            POINTS=points,
            ANCHORS=anchors,
            BLOCK_QUERIES=block_queries,
            BLOCK_POINTS=block_points,
            BLOCK_CHANNELS=block_channels,
            num_warps=warps,
            **options,
        )


@triton.jit
def _cell(offset, references, seen, SIZE: tl.constexpr):
    """Column (or row) of the cell left of (above) the position, and how far the position lies from its centre.

    Far outside becomes just so far outside that no corner is inside. What is no number stays none, outside too.
    """
    reference = tl.load(references, mask=seen, other=0.0).to(tl.float32)
    position = reference * SIZE + offset - 0.5
    position = tl.clamp(position, -2.0, SIZE * 1.0, propagate_nan=tl.PropagateNan.ALL)
    floor = tl.floor(position)
    return tl.where(position == position, floor, -2.0).to(tl.int32), position - floor


@triton.jit
def _neighbours(offset, references, seen, SIZE: tl.constexpr):
    """The columns (or rows) before and after the position, and their weights: zero for one outside the level, in whose
    place another stands, so that loads need no mask. What is no number makes a weight that is none."""
    reference = tl.load(references, mask=seen, other=0.0).to(tl.float32)
    position = tl.clamp(reference * SIZE + offset - 0.5, -1.0, SIZE * 1.0, propagate_nan=tl.PropagateNan.ALL)
    floor = tl.floor(position)
    part, cell = position - floor, floor.to(tl.int32)
    by_first = tl.where((cell >= 0) & (cell < SIZE), 1 - part, 0.0)
    by_second = tl.where(cell < SIZE - 1, part, 0.0)
    return (
        tl.minimum(tl.maximum(cell, 0), SIZE - 1),
        tl.minimum(tl.maximum(cell + 1, 0), SIZE - 1),
        by_first,
        by_second,
    )


@triton.jit
def _corner(column, row, seen, HEIGHT: tl.constexpr, WIDTH: tl.constexpr):
    """The cell's index in its level, and whether it is there."""
    return row * WIDTH + column, seen & (column >= 0) & (column < WIDTH) & (row >= 0) & (row < HEIGHT)


@triton.jit
def _float32(numbers):
    if numbers.dtype == tl.bfloat16:  # in one instruction, where .to(tl.float32) takes up to two
        numbers = (numbers.to(tl.uint16, bitcast=True).to(tl.uint32) << 16).to(tl.float32, bitcast=True)
    return numbers.to(tl.float32)


@triton.jit
def _number(numbers, constants, seen, HAS_CONSTANT: tl.constexpr):
    number = tl.load(numbers, mask=seen, other=0.0).to(tl.float32)
    if HAS_CONSTANT:
        number += tl.load(constants, mask=seen, other=0.0).to(tl.float32)
    return number


@triton.jit
def _sum_samples(
    value,
    offsets,
    weights,
    references,
    shares,
    output,
    constants,
    images,
    queries,
    cells,
    HEIGHTS: tl.constexpr,
    WIDTHS: tl.constexpr,
    STARTS: tl.constexpr,
    HEADS: tl.constexpr,
    CHANNELS: tl.constexpr,
    POINTS: tl.constexpr,
    ANCHORS: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_POINTS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_SAMPLES: tl.constexpr,
    OFFSETS_ROW: tl.constexpr,
    WEIGHTS_ROW: tl.constexpr,
    SETS: tl.constexpr,
    HAS_CONSTANT: tl.constexpr,
):
    """OFFSETS_ROW, WEIGHTS_ROW: numbers from one query to the next. SETS: 0 where weights are weights, otherwise they
    become such by a softmax over each of as many sets of points."""
    LEVELS: tl.constexpr = len(STARTS)
    SAMPLES: tl.constexpr = HEADS * LEVELS * POINTS
    head, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    query = tl.program_id(0) * BLOCK_QUERIES + tl.arange(0, BLOCK_QUERIES)
    point = tl.arange(0, BLOCK_POINTS)[:, None]  # first, so that a thread has several of them, and sums by itself
    channel = tl.arange(0, BLOCK_CHANNELS)
    offset_row = offsets + (batch * queries + query) * OFFSETS_ROW + head * LEVELS * POINTS
    weight_row = weights + (batch * queries + query) * WEIGHTS_ROW + head * LEVELS * POINTS
    constant_row = constants + query * (3 * SAMPLES) + head * LEVELS * POINTS
    if SETS > 0:  # shift: logarithm of the sum that a softmax divides by
        every = tl.arange(0, BLOCK_SAMPLES)[:, None]
        asked = (query < queries) & (every < LEVELS * POINTS)
        logits = _number(weight_row + every, constant_row + 2 * SAMPLES + every, asked, HAS_CONSTANT)
        shift = tl.zeros([1 if SETS == 1 else BLOCK_POINTS, BLOCK_QUERIES], tl.float32)
        for group in tl.static_range(SETS):
            of_set = (every < LEVELS * POINTS) & (every % POINTS // (POINTS // SETS) == group)
            highest = tl.max(tl.where(of_set, logits, -float("inf")), axis=0)
            summed = tl.sum(tl.where(of_set, tl.exp(logits - highest), 0.0), axis=0)
            of_group = (highest + tl.log(SETS * summed))[None, :]
            shift = of_group if SETS == 1 else tl.where(point // (POINTS // SETS) == group, of_group, shift)
    total = tl.zeros([BLOCK_POINTS, BLOCK_QUERIES, BLOCK_CHANNELS], tl.float32)
    for image in range(images):
        view = batch * images + image
        share = tl.load(shares + view * queries + query, mask=query < queries, other=0.0)
        if tl.max(share) > 0:
            seen = (share > 0)[None, :] & (point < POINTS)
            reference = references + ((view * queries + query)[None, :] * ANCHORS + point % ANCHORS) * 2
            for index in tl.static_range(LEVELS):
                level = value + ((view * cells + STARTS[index]) * HEADS + head) * CHANNELS
                start = index * POINTS + point
                x = _number(offset_row + start, constant_row + start, seen, HAS_CONSTANT)
                y = _number(offset_row + SAMPLES + start, constant_row + SAMPLES + start, seen, HAS_CONSTANT)
                weight = _number(weight_row + start, constant_row + 2 * SAMPLES + start, seen, HAS_CONSTANT)
                if SETS > 0:
                    weight = tl.where(seen, tl.exp(weight - shift), 0.0)
                left, right, by_left, by_right = _neighbours(x, reference, seen, WIDTHS[index])
                above, below, by_above, by_below = _neighbours(y, reference + 1, seen, HEIGHTS[index])
                weight = weight * share[None, :]
                for corner in tl.static_range(4):
                    cell = (below if corner // 2 else above) * WIDTHS[index] + (right if corner % 2 else left)
                    part = weight * (by_below if corner // 2 else by_above) * (by_right if corner % 2 else by_left)
                    numbers = level + (cell * (HEADS * CHANNELS))[:, :, None] + channel
                    total += part[:, :, None] * _float32(tl.load(numbers, mask=channel < CHANNELS, other=0.0))
    tl.store(
        output + ((batch * queries + query)[:, None] * HEADS + head) * CHANNELS + channel,
        tl.sum(total, axis=0).to(output.dtype.element_ty),
        mask=(query < queries)[:, None] & (channel < CHANNELS),
    )


@triton.jit
def _differentiate(
    value,
    offsets,
    weights,
    references,
    shares,
    output_gradient,
    value_gradient,
    offsets_gradient,
    weights_gradient,
    images,
    queries,
    cells,
    HEIGHTS: tl.constexpr,
    WIDTHS: tl.constexpr,
    STARTS: tl.constexpr,
    HEADS: tl.constexpr,
    CHANNELS: tl.constexpr,
    POINTS: tl.constexpr,
    ANCHORS: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_POINTS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    SAMPLES: tl.constexpr = HEADS * len(STARTS) * POINTS
    head, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    query = tl.program_id(0) * BLOCK_QUERIES + tl.arange(0, BLOCK_QUERIES)
    point = tl.arange(0, BLOCK_POINTS)
    channel = tl.arange(0, BLOCK_CHANNELS)
    gradient = tl.load(
        output_gradient + ((batch * queries + query)[:, None] * HEADS + head) * CHANNELS + channel,
        mask=(query < queries)[:, None] & (channel < CHANNELS),
        other=0.0,
    ).to(tl.float32)[:, None, :]
    for index in tl.static_range(len(STARTS)):
        sample = (head * len(STARTS) + index) * POINTS + point
        offset = (batch * queries + query)[:, None] * (2 * SAMPLES) + sample
        by_column = tl.zeros([BLOCK_QUERIES, BLOCK_POINTS], tl.float32)
        by_row = tl.zeros([BLOCK_QUERIES, BLOCK_POINTS], tl.float32)
        by_weight = tl.zeros([BLOCK_QUERIES, BLOCK_POINTS], tl.float32)
        for image in range(images):
            view = batch * images + image
            share = tl.load(shares + view * queries + query, mask=query < queries, other=0.0)
            if tl.max(share) > 0:
                seen = (share > 0)[:, None] & (point < POINTS)
                reference = references + ((view * queries + query)[:, None] * ANCHORS + point % ANCHORS) * 2
                level = ((view * cells + STARTS[index]) * HEADS + head) * CHANNELS
                x = _number(offsets + offset, offsets, seen, False)
                y = _number(offsets + offset + SAMPLES, offsets, seen, False)
                column, right = _cell(x, reference, seen, WIDTHS[index])
                row, lower = _cell(y, reference + 1, seen, HEIGHTS[index])
                weight = tl.load(weights + (batch * queries + query)[:, None] * SAMPLES + sample, mask=seen, other=0.0)
                weight = weight.to(tl.float32) * share[:, None]
                for corner in tl.static_range(4):
                    by_right = right if corner % 2 else 1 - right
                    by_lower = lower if corner // 2 else 1 - lower
                    cell, inside = _corner(column + corner % 2, row + corner // 2, seen, HEIGHTS[index], WIDTHS[index])
                    inside = inside[:, :, None] & (channel < CHANNELS)
                    number = level + (cell * (HEADS * CHANNELS))[:, :, None] + channel
                    numbers = tl.load(value + number, mask=inside, other=0.0).to(tl.float32)
                    along = tl.sum(numbers * gradient, axis=2)
                    by_weight += share[:, None] * by_right * by_lower * along
                    by_column += weight * by_lower * (along if corner % 2 else -along)
                    by_row += weight * by_right * (along if corner // 2 else -along)
                    spread = (weight * by_right * by_lower)[:, :, None] * gradient
                    tl.atomic_add(value_gradient + number, spread, mask=inside, sem="relaxed")
        here = (query < queries)[:, None] & (point < POINTS)
        tl.store(offsets_gradient + offset, by_column, mask=here)
        tl.store(offsets_gradient + offset + SAMPLES, by_row, mask=here)
        tl.store(weights_gradient + (batch * queries + query)[:, None] * SAMPLES + sample, by_weight, mask=here)
