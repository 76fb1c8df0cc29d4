"""Deformable attention in plain PyTorch: what the sampling means, and how it runs wherever there is no fused kernel.

Shapes: B batch, N images that a query may look into (cameras, or one BEV map), S cells of all levels of an image,
H heads, D channels of a head, C = H*D, Q queries, L levels, P points per head and level, Z reference points.

A row is one query looking into one image.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

LevelShapes = tuple[tuple[int, int], ...]  # (height, width) of each level

# Rows sampled at once on the CPU, which bounds memory. Fewer would stay in the cache, but then the threads meet so
# often that the sampling takes twice as long on a busy machine.
_CPU_ROWS = 4096
# The same elsewhere, where more rows keep the device busy: a camera's of the released models, with 1.2 GB.
_DEVICE_ROWS = 40_000

# Device types on which a shape may depend on data, because no host waits for it there.
_DATA_DEPENDENT_SHAPES = ("cpu",)


class View(NamedTuple):
    """Where each query looks.

    reference_points: (B, N, Q, Z, 2) x, y in 0..1 of the image. share: (B, N, Q) of the image in the query's sum; an
    image with share 0 is not looked into. Both float32.
    """

    reference_points: Tensor
    share: Tensor


def deformable_attention_in_torch(
    value: Tensor, level_shapes: LevelShapes, offsets: Tensor, weights: Tensor, view: View
) -> Tensor:
    """See `deformable_attention`. Only rows that see something are sampled on the CPU.

    On other devices all are: their number must not depend on data, or the host would have to wait for it. In an
    exported program it must not either.
    """
    batch, images, _, heads, channels = value.shape
    queries, points, anchors = weights.shape[1], weights.shape[-1], view.reference_points.shape[3]
    layout = _layout(level_shapes, heads, points, anchors, value.device)
    table = _bordered_table(value.flatten(0, 1), level_shapes)
    table_rows_of_image = len(table) // (batch * images)
    offsets, weights = (tensor.flatten(0, 1).flatten(1).float() for tensor in (offsets, weights))
    reference_points, share = view.reference_points.flatten(0, 2).flatten(1), view.share.flatten()
    output = value.new_zeros(batch * queries, heads * channels)
    for row in _rows(share):
        image = row // queries
        query = image // images * queries + row % queries
        sampled = _sample(
            table,
            layout,
            torch.addmm(
                offsets.index_select(0, query),
                reference_points.index_select(0, row),
                layout.position_from_reference,
            ),
            weights.index_select(0, query) * share.index_select(0, row).unsqueeze(1),
            (image * table_rows_of_image).int(),
            heads,
        )
        output.index_add_(0, query, sampled.view(len(row), heads * channels))
    return output.view(batch, queries, heads * channels)


def _rows(share: Tensor) -> tuple[Tensor, ...]:
    """Indices of share (B*N*Q,) that are to be sampled, in chunks."""
    if share.device.type in _DATA_DEPENDENT_SHAPES and not torch.compiler.is_exporting():
        return share.nonzero()[:, 0].split(_CPU_ROWS)
    return torch.arange(len(share), device=share.device).split(_DEVICE_ROWS)


class _Layout(NamedTuple):
    """Constants of the sampling, for N = H*L*P samples of a row. Cells count from the corner of the zero border.

    position_from_reference: (Z*2, 2*N). last: (2, N) largest position. start: (N,) index in an image's table of the
    level's first cell for the head. width: (N,) of the level in cells.
    """

    position_from_reference: Tensor
    last: Tensor
    start: Tensor
    width: Tensor


@functools.lru_cache(maxsize=32)
def _layout(level_shapes: LevelShapes, heads: int, points: int, anchors: int, device: torch.device) -> _Layout:
    """Made once per set of shapes, so that a forward pass copies no constants to a GPU.

    Outside inference mode, whoever asks first: training may want the same constants later.
    """
    with torch.inference_mode(False):
        return _make_layout(level_shapes, heads, points, anchors, device)


def _make_layout(level_shapes: LevelShapes, heads: int, points: int, anchors: int, device: torch.device) -> _Layout:
    bordered = torch.tensor([(width + 3, height + 3) for height, width in level_shapes])
    ends = bordered.prod(dim=1).cumsum(0)
    starts = ends - bordered.prod(dim=1) + ends[-1] * torch.arange(heads).unsqueeze(1)  # (H, L)
    samples = (heads, len(level_shapes), points)
    sizes = (bordered - 3).T[:, None, :, None].expand(2, *samples).float()
    selection = torch.eye(anchors).repeat(1, points // anchors)  # (Z, P)
    position_from_reference = torch.einsum("zp,ahlp,ab->zabhlp", selection, sizes, torch.eye(2))
    return _Layout(
        position_from_reference=position_from_reference.reshape(anchors * 2, -1).to(device),
        last=(sizes + 1).flatten(1).to(device),
        start=starts.unsqueeze(-1).expand(samples).flatten().int().to(device),
        width=(sizes[0] + 3).flatten().to(device),
    )


def _bordered_table(value: Tensor, level_shapes: LevelShapes) -> Tensor:
    """value (I, S, H, D) with a border of zeros around every level, as a table (I*H*S', D).

    One cell before and two after: a position clamped to one cell outside then reads zeros without any test.
    """
    images, _, heads, channels = value.shape
    cells = [(height + 3) * (width + 3) for height, width in level_shapes]
    table = value.new_zeros(images, heads, sum(cells), channels)
    levels = value.split([height * width for height, width in level_shapes], dim=1)
    starts = itertools.accumulate(cells, initial=0)
    for level, start, count, (height, width) in zip(levels, starts, cells, level_shapes, strict=False):
        # narrow, not split: autograd refuses to write into the views that split gives.
        part = table.narrow(2, start, count).view(images, heads, height + 3, width + 3, channels)
        part[:, :, 1:-2, 1:-2] = level.unflatten(1, (height, width)).permute(0, 3, 1, 2, 4)
    return table.view(-1, channels)


def _sample(
    table: Tensor, layout: _Layout, positions: Tensor, weights: Tensor, image_start: Tensor, heads: int
) -> Tensor:
    """(R*H, D) from positions (R, 2*N), where 0 is the edge of the image, and weights (R, N)."""
    positions = (positions.unflatten(1, (2, -1)) + 0.5).clamp(torch.zeros_like(layout.last), layout.last)
    cells = positions.floor()
    right, lower = (positions - cells).unbind(1)
    upper_left = torch.addcmul(cells[:, 0], cells[:, 1], layout.width).int() + (image_start.unsqueeze(1) + layout.start)
    upper_left.clamp_(min=0)  # what comes of a position that is not a number must be no address outside the table
    lower_left = upper_left + layout.width.int()
    weight_right = weights * right
    weight_left = weights - weight_right
    weight_lower_right = weight_right * lower
    weight_lower_left = weight_left * lower

    def bags(*corners: Tensor) -> Tensor:
        """Four times (R, N) -> (R*H, 4*L*P)."""
        return torch.stack([corner.unflatten(1, (heads, -1)) for corner in corners], dim=2).flatten(2).flatten(0, 1)

    indices = bags(upper_left, upper_left + 1, lower_left, lower_left + 1)
    corner_weights = bags(
        weight_left - weight_lower_left, weight_right - weight_lower_right, weight_lower_left, weight_lower_right
    ).to(table.dtype)
    if table.device.type == "cpu" and table.requires_grad:
        return _CpuTableGradient.apply(
            _weighted_sum(indices, table.detach(), corner_weights), table, indices, corner_weights
        )
    return _weighted_sum(indices, table, corner_weights)


def _weighted_sum(indices: Tensor, table: Tensor, weights: Tensor) -> Tensor:
    """(B, D) from a table (T, D): the rows that indices (B, n) name, by weights (B, n)."""
    return F.embedding_bag(indices, table, per_sample_weights=weights, mode="sum")


class _CpuTableGradient(torch.autograd.Function):
    """Passes a weighted sum on; backward it adds the table's gradient, as the transposed sparse product that it is.

    scipy needs a fifteenth of the time of embedding_bag's own backward pass, which sorts all indices first.
    """

    @staticmethod
    def forward(ctx: Any, summed: Tensor, table: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(indices, weights)
        ctx.table_rows = len(table)
        return summed.view_as(summed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        indices, weights = ctx.saved_tensors
        ends = np.arange(len(indices) + 1, dtype=np.int32) * indices.shape[1]
        sums = scipy.sparse.csr_matrix(
            (weights.float().flatten().numpy(), indices.flatten().numpy(), ends), (len(indices), ctx.table_rows)
        )
        table_gradient = torch.from_numpy(sums.T @ gradient.float().contiguous().numpy())
        return gradient, table_gradient.to(gradient.dtype), None, None


def grid_sample_attention(
    value: Tensor, level_shapes: LevelShapes, offsets: Tensor, weights: Tensor, view: View
) -> Tensor:
    """The same by torch's grid_sample, as it is commonly written: every query in every image.

    The definition in the fewest words, and what faster ways are compared with. It samples in float32.
    """
    batch, images, _, heads, channels = value.shape
    repeats = weights.shape[-1] // view.reference_points.shape[3]
    references = view.reference_points.repeat(1, 1, 1, repeats, 1).unsqueeze(2)  # (B, N, 1, Q, P, 2)
    levels = value.float().split([height * width for height, width in level_shapes], dim=2)
    total = value.new_zeros(batch, images, heads, channels, offsets.shape[1], dtype=torch.float32)
    for index, (level, (height, width)) in enumerate(zip(levels, level_shapes, strict=True)):
        x, y = offsets[:, :, :, :, index].float().permute(2, 0, 3, 1, 4)  # (B, H, Q, P) each
        place = references + torch.stack([x / width, y / height], dim=-1).unsqueeze(1)  # (B, N, H, Q, P, 2)
        feature = level.permute(0, 1, 3, 4, 2).reshape(-1, channels, height, width)  # (B*N*H, D, h, w)
        samples = F.grid_sample(feature, 2 * place.flatten(0, 2) - 1, align_corners=False)  # (B*N*H, D, Q, P)
        level_weights = weights[:, :, :, index].float().transpose(1, 2)[:, None, :, None]  # (B, 1, H, 1, Q, P)
        total = total + (samples.unflatten(0, (batch, images, heads)) * level_weights).sum(dim=-1)
    mean = (total * view.share[:, :, None, None]).sum(dim=1)  # (B, H, D, Q)
    return mean.permute(0, 3, 1, 2).flatten(2).to(value.dtype)
