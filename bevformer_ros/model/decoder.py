"""Detection decoder (paper, section 3.5): object queries look at the BEV map and refine their boxes layer by layer.

Shapes: B batch, Q queries (of all groups), G groups, C channels, L layers, K classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bevformer_ros.model.attention.deformable_attention import DeformableAttention
from bevformer_ros.model.attention.torch_sampling import View
from bevformer_ros.model.box_coding import BOX_CODE_SIZE, box_codes_at
from bevformer_ros.model.config import BevGridConfig, DecoderConfig
from bevformer_ros.model.fused_operators import add_norm, linear_relu
from bevformer_ros.model.layers import FeedForward
from bevformer_ros.model.object_queries import PRIOR_LOGIT, ObjectQueries


class DecoderOutput(NamedTuple):
    """class_logits: (L, B, Q, K), of the last layer alone once folded. box_codes: (L, B, Q, 10), see box_coding. Both
    float32, last layer last.

    padding_mask: (B, Q) True where the query is to be ignored, or None. from_proposal: (Q,).
    """

    class_logits: Tensor
    box_codes: Tensor
    padding_mask: Tensor | None
    from_proposal: Tensor


class SelfAttention(nn.Module):
    """Multi-head attention among the queries of one group."""

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.input = nn.Linear(channels, 3 * channels)
        self.output = nn.Linear(channels, channels)
        for projection in (self.input, self.output):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(self, content: Tensor, position: Tensor, mask: Tensor | None) -> Tensor:
        """content, position (B, Q, C), mask (B, 1, 1, Q) to be added to the logits of attention -> (B, Q, C)."""
        channels = content.shape[-1]
        (placed_weight, value_weight), (placed_bias, value_bias) = (
            parameter.split([2 * channels, channels]) for parameter in (self.input.weight, self.input.bias)
        )
        projected = (
            *F.linear(content + position, placed_weight, placed_bias).chunk(2, dim=-1),
            F.linear(content, value_weight, value_bias),
        )
        query, key, value = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in projected)
        attended = F.scaled_dot_product_attention(  # (B, heads, Q, C / heads)
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.output(attended.transpose(1, 2).flatten(2))


class DecoderLayer(nn.Module):
    """Self-attention among the queries, cross-attention to the BEV map, feed-forward; a norm after each."""

    def __init__(self, config: DecoderConfig, channels: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = SelfAttention(channels, config.heads, dropout)
        self.cross_attention = DeformableAttention(channels, config.heads, levels=1, points=config.points)
        self.feed_forward = FeedForward(channels, config.hidden_channels, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        content: Tensor,
        position: Tensor,
        view: View,
        mask: Tensor | None,
        groups: int,
        bev: Tensor,
        grid_shape: tuple[int, int],
    ) -> Tensor:
        """content, position (B, Q, C), view of the BEV map bev (B, H*W, C), mask as of SelfAttention -> (B, Q, C)."""
        grouped, grouped_position = (x.unflatten(1, (groups, -1)).flatten(0, 1) for x in (content, position))
        attended = self.self_attention(grouped, grouped_position, mask).view_as(content)  # of (B*G, Q/G, C)
        content = add_norm(self.norms[0], self.dropout(attended), content)
        sampled = self.cross_attention(content + position, bev.unsqueeze(1), (grid_shape,), view)
        content = add_norm(self.norms[1], self.dropout(self.cross_attention.output(sampled)), content)
        return add_norm(self.norms[2], self.feed_forward(content), content)


class Decoder(nn.Module):
    range_low: Tensor
    range_extent: Tensor

    def __init__(
        self,
        config: DecoderConfig,
        grid: BevGridConfig,
        channels: int,
        classes: int,
        dropout: float,
        residual: bool = False,
    ) -> None:
        """residual: for queries with a base: every layer starts out as adding nothing to it."""
        super().__init__()
        self.grid_shape = (grid.rows, grid.columns)
        low, high = torch.tensor(grid.range).view(2, 3)
        self.register_buffer("range_low", low, persistent=False)
        self.register_buffer("range_extent", high - low, persistent=False)
        self.layers = nn.ModuleList(DecoderLayer(config, channels, dropout) for _ in range(config.layers))
        self.class_branches = nn.ModuleList(_class_branch(channels, classes) for _ in range(config.layers))
        self.box_branches = nn.ModuleList(_BoxBranch(channels) for _ in range(config.layers))
        if residual:
            for branch in (*self.class_branches, *self.box_branches):
                nn.init.zeros_(branch[-1].weight)
                nn.init.zeros_(branch[-1].bias)

    def forward(self, bev: Tensor, queries: ObjectQueries) -> DecoderOutput:
        """bev (B, H*W, C): class logits and box codes of every layer.

        Each layer's box is an offset to the reference points of the layer before; no gradient flows from layer to
        layer through them. With a base, logits and all else are offsets to it. Logits, reference points and
        boxes are float32 in every precision.
        """
        content, position = queries.content.to(bev.dtype), queries.position.to(bev.dtype)
        reference_points = queries.reference_points.float()
        share = torch.ones_like(reference_points[:, None, :, 0])
        mask = (
            None if queries.padding_mask is None else _attention_mask(queries.padding_mask, queries.groups, bev.dtype)
        )
        class_logits, box_codes = [], []
        first_with_logits = len(self.layers) - len(self.class_branches)
        for index, (layer, box_branch) in enumerate(zip(self.layers, self.box_branches, strict=True)):
            view = View(reference_points[:, None, :, None, :2], share)
            content = layer(content, position, view, mask, queries.groups, bev, self.grid_shape)
            state = content.float()
            codes, refined_points = box_codes_at(reference_points, box_branch(state), self.range_low, self.range_extent)
            if queries.base is not None:
                codes = codes + queries.base.codes
            if index >= first_with_logits:
                logits = self.class_branches[index - first_with_logits](state)
                class_logits.append(logits if queries.base is None else logits + queries.base.class_logits)
            box_codes.append(codes)
            reference_points = refined_points.detach()
        return DecoderOutput(
            torch.stack(class_logits), torch.stack(box_codes), queries.padding_mask, queries.from_proposal
        )

    def fold(self) -> None:
        """For inference, which reads no class logits but the last layer's."""
        for layer in self.layers:
            assert isinstance(layer, DecoderLayer)
            layer.cross_attention.fold()
        self.class_branches = self.class_branches[-1:]


def _attention_mask(padding_mask: Tensor, groups: int, dtype: torch.dtype) -> Tensor:
    """(B*G, 1, 1, Q/G), minus infinity for the padding (B, Q), else zero."""
    grouped = padding_mask.unflatten(1, (groups, -1)).flatten(0, 1)[:, None, None]
    return torch.zeros_like(grouped, dtype=dtype).masked_fill(grouped, -torch.inf)


def _class_branch(channels: int, classes: int) -> nn.Sequential:
    logits = nn.Linear(channels, classes)
    nn.init.constant_(logits.bias, PRIOR_LOGIT)
    return nn.Sequential(
        nn.Linear(channels, channels),
        nn.LayerNorm(channels),
        nn.ReLU(inplace=True),
        nn.Linear(channels, channels),
        nn.LayerNorm(channels),
        nn.ReLU(inplace=True),
        logits,
    )


class _BoxBranch(nn.Sequential):
    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.Linear(channels, channels),
            nn.ReLU(),
            nn.Linear(channels, channels),
            nn.ReLU(),
            nn.Linear(channels, BOX_CODE_SIZE),
        )

    def forward(self, state: Tensor) -> Tensor:
        return self[4](linear_relu(self[2], linear_relu(self[0], state)))
