"""BEV encoder (paper, section 3.2; BEVFormer v1, section 3.2 and 3.3): grid queries look into the cameras.

Shapes: B batch, N cameras, Q = rows x columns cells of the BEV grid (row = y, column = x, row-major), Z points of a
pillar, S cells of all feature levels of a camera, C channels.

BEVFormer v2 never hands a previous BEV map to the temporal self-attention, so it attends to the queries themselves.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from bevformer_ros.model.attention.deformable_attention import DeformableAttention
from bevformer_ros.model.attention.torch_sampling import LevelShapes, View
from bevformer_ros.model.config import BevGridConfig, EncoderConfig
from bevformer_ros.model.fused_operators import add_norm
from bevformer_ros.model.layers import FeedForward

_NEAREST_DEPTH = 1e-5


class PillarProjection(NamedTuple):
    """points: (B, N, Q, Z, 2) in 0..1 of the padded image. visible: (B, N, Q, Z)."""

    points: Tensor
    visible: Tensor


def pillar_points(grid: BevGridConfig, count: int, device: torch.device | None = None) -> Tensor:
    """Points (Q, Z, 3) in the BEV frame: cell centres, `count` heights evenly from 0.5 m inside the bottom to the top.

    float32 throughout, in the official order of operations, so that visibility at an image border agrees.
    """
    x_min, y_min, z_min, x_max, y_max, z_max = grid.range
    height = z_max - z_min
    z = torch.linspace(0.5, height - 0.5, count, device=device) / height
    x = _cell_centres(grid.columns, device)
    y = _cell_centres(grid.rows, device)
    y, x, z = torch.meshgrid(
        y * (y_max - y_min) + y_min, x * (x_max - x_min) + x_min, z * height + z_min, indexing="ij"
    )
    return torch.stack([x, y, z], dim=-1).flatten(0, 1)


def _grid_centres(grid: BevGridConfig) -> Tensor:
    """(Q, 1, 2): x and y of each cell in 0..1 of the map."""
    y, x = torch.meshgrid(_cell_centres(grid.rows), _cell_centres(grid.columns), indexing="ij")
    return torch.stack([x, y], dim=-1).view(-1, 1, 2)


def _cell_centres(count: int, device: torch.device | None = None) -> Tensor:
    return torch.linspace(0.5, count - 0.5, count, device=device) / count


def project_pillars(
    points: Tensor, image_from_bev: Tensor, image_size: tuple[int, int], camera_valid: Tensor | None
) -> PillarProjection:
    """Where the pillars (Q, Z, 3) lie in each camera.

    image_from_bev: (B, N, 4, 4) to pixels of the padded network input, whose (height, width) is image_size.
    camera_valid: (B, N), False for a camera without an image; None if all have one.
    """
    matrix = image_from_bev.float()[:, :, None, None]  # (B, N, 1, 1, 4, 4)
    x, y, z = (part.unsqueeze(-1) for part in points.unbind(-1))  # (Q, Z, 1)
    projected = matrix[..., :3, 0] * x + matrix[..., :3, 1] * y + matrix[..., :3, 2] * z + matrix[..., :3, 3]
    depth = projected[..., 2:]
    pixels = projected[..., :2] / depth.clamp(min=_NEAREST_DEPTH)
    height, width = image_size
    normalised = torch.stack([pixels[..., 0] / width, pixels[..., 1] / height], dim=-1)
    inside = ((normalised > 0) & (normalised < 1)).all(dim=-1)
    visible = inside & (depth[..., 0] > _NEAREST_DEPTH)
    if camera_valid is not None:
        visible = visible & camera_valid[:, :, None, None]
    return PillarProjection(torch.nan_to_num(normalised), visible)


def camera_view(projection: PillarProjection) -> View:
    """A cell looks into every camera that sees one of its pillar points, and takes their mean."""
    hit = projection.visible.any(dim=-1)  # (B, N, Q)
    return View(projection.points, hit / hit.sum(dim=1, keepdim=True).clamp(min=1))


class EncoderLayer(nn.Module):
    """Temporal self-attention (TSA: self_attention), spatial cross-attention (SCA: cross_attention), feed-forward.

    A norm after each. In v2 the TSA sees no past: it attends to the grid of the queries themselves.
    """

    def __init__(self, config: EncoderConfig, grid: BevGridConfig, channels: int, dropout: float) -> None:
        super().__init__()
        self.grid_shape = (grid.rows, grid.columns)
        self.self_attention = DeformableAttention(
            channels, config.heads, levels=1, points=config.grid_points, query_channels=2 * channels, sets=2
        )
        self.cross_attention = DeformableAttention(
            channels, config.heads, levels=config.image_levels, points=config.image_points
        )
        self.feed_forward = FeedForward(channels, config.hidden_channels, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def attend_to_grid(self, query: Tensor, position: Tensor | None, own_view: View) -> Tensor:
        """query (B, Q, C), position (Q, C) -> (B, Q, C): the layer's first part. position: None once folded."""
        asked = query if position is None else torch.cat([query, query + position], dim=-1)
        attended = self.self_attention(asked, query.unsqueeze(1), (self.grid_shape,), own_view)
        return add_norm(self.norms[0], self.dropout(self.self_attention.output(attended)), query)

    def attend_to_cameras(self, query: Tensor, features: Tensor, level_shapes: LevelShapes, view: View) -> Tensor:
        """query (B, Q, C), features (B, N, S, C) -> (B, Q, C): the rest of it."""
        attended = self.cross_attention(query, features, level_shapes, view)
        query = add_norm(self.norms[1], self.dropout(self.cross_attention.output(attended)), query)
        return add_norm(self.norms[2], self.feed_forward(query), query)


class BevEncoder(nn.Module):
    """first_queries: what the first layer's `attend_to_grid` makes of the queries, once folded."""

    pillars: Tensor
    cell_centres: Tensor

    def __init__(self, config: EncoderConfig, grid: BevGridConfig, cameras: int, channels: int, dropout: float) -> None:
        super().__init__()
        self.config = config
        self.grid = grid
        self.queries = nn.Embedding(grid.rows * grid.columns, channels)
        self.row_position = nn.Embedding(grid.rows, channels // 2)
        self.column_position = nn.Embedding(grid.columns, channels // 2)
        self.level_embedding = nn.Parameter(torch.randn(config.image_levels, channels))
        self.camera_embedding = nn.Parameter(torch.randn(cameras, channels))
        self.layers = nn.ModuleList(EncoderLayer(config, grid, channels, dropout) for _ in range(config.layers))
        self.first_queries: nn.Parameter | None = None
        self.register_buffer("pillars", pillar_points(grid, config.pillar_points), persistent=False)
        self.register_buffer("cell_centres", _grid_centres(grid), persistent=False)

    def forward(
        self,
        features: Tensor,
        level_shapes: LevelShapes,
        image_from_bev: Tensor,
        image_size: tuple[int, int],
        camera_valid: Tensor | None = None,
    ) -> Tensor:
        """Flattened features (B, N, S, C) and image_from_bev (B, N, 4, 4) -> BEV features (B, Q, C)."""
        batch = len(image_from_bev)
        view = camera_view(project_pillars(self.pillars, image_from_bev, image_size, camera_valid))
        folded = self.first_queries is not None
        query = self.first_queries if self.first_queries is not None else self.queries.weight
        query = query.expand(batch, -1, -1)
        position, own_view = None if folded else self._position(), self._own_view(batch)
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, EncoderLayer)
            if index or not folded:
                query = layer.attend_to_grid(query, position, own_view)
            query = layer.attend_to_cameras(query, features, level_shapes, view)
        return query

    def flatten(self, features: tuple[Tensor, ...]) -> Tensor:
        """Feature levels (B, N, C, h, w) -> (B, N, S, C), each cell told its camera and its level."""
        levels = [
            level.flatten(3).transpose(2, 3) + (self.camera_embedding.unsqueeze(1) + embedding)
            for level, embedding in zip(features[: self.config.image_levels], self.level_embedding, strict=True)
        ]
        return torch.cat(levels, dim=2)

    def fold(self) -> None:
        """For inference: what depends on weights alone is computed once."""
        position = self._position()
        layers = [layer for layer in self.layers if isinstance(layer, EncoderLayer)]
        for layer in layers:
            layer.self_attention.fold(position)
            layer.cross_attention.fold()
        first = layers[0].attend_to_grid(self.queries.weight[None], None, self._own_view(1))
        self.first_queries = nn.Parameter(first[0], requires_grad=False)

    def _position(self) -> Tensor:
        """(Q, C): the first half of the channels tells the column, the second the row."""
        rows, columns = self.grid.rows, self.grid.columns
        column = self.column_position.weight.expand(rows, -1, -1)
        row = self.row_position.weight.unsqueeze(1).expand(-1, columns, -1)
        return torch.cat([column, row], dim=-1).flatten(0, 1)

    def _own_view(self, batch: int) -> View:
        """Each cell looks at its own place in the BEV map of its batch element."""
        centres = self.cell_centres.expand(batch, 1, -1, -1, -1)
        return View(centres, torch.ones_like(centres[..., 0, 0]))
