"""The rolling history of BEV features: stored once, looked up by time, brought into the current BEV frame.

Shapes: T frames of the model, K stored frames in use, N cameras, H x W cells of the BEV grid, C channels.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bevformer_ros import geometry
from bevformer_ros.history import NANOSECONDS, FrameRecord, HistoryConfig, Slots, reset_reason
from bevformer_ros.model.config import BevGridConfig, TemporalConfig
from bevformer_ros.types import SurroundFrame

LOGGER = logging.getLogger(__name__)

# Image features (levels of (1, N, C, h, w)), image_from_bev (1, N, 4, 4), camera_valid (1, N) -> BEV (1, H*W, C).
EncodeBev = Callable[[tuple[Tensor, ...], Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class EncodedFrame:
    """What one frame leaves behind for later ones.

    bev: (1, H*W, C) in this frame's own BEV frame. features: the levels that the BEV encoder reads, each
    (1, N, C, h, w). image_from_bev: (N, 4, 4) in float64, of this frame. camera_valid: (1, N) bool.
    """

    stamp_ns: int
    world_from_bev: NDArray[np.float64]
    bev: Tensor
    features: tuple[Tensor, ...]
    image_from_bev: NDArray[np.float64]
    camera_valid: Tensor


@dataclass(frozen=True)
class Recall:
    """bevs: (1, T, H*W, C) in the model's order, all in the current BEV frame. depth: stored frames in use.

    velocity_scale: factor for velocities that the model reads off these frames (history.Slots.velocity_scale).
    """

    bevs: Tensor
    depth: int
    velocity_scale: float


@dataclass(frozen=True)
class _Entry:
    stamp_ns: int
    world_from_bev: NDArray[np.float64]
    image_from_bev: NDArray[np.float64]
    camera_valid: Tensor
    cell: int


def warp_bev(bevs: Tensor, past_from_now: NDArray[np.float64], grid: BevGridConfig) -> Tensor:
    """Bring past BEV features (K, H*W, C) into the current BEV frame by ego motion; one batched bilinear sampling.

    past_from_now: (K, 4, 4), from the current BEV frame to each past one; its planar part at z = 0 is used.
    Cells that were out of range in the past become zero, as the reference's BEV augmentation leaves them.
    """
    rows, columns = grid.rows, grid.columns
    affine = torch.from_numpy(_normalised(past_from_now, grid)).to(bevs.device, torch.float32)[..., None, None]
    x = torch.linspace(1 / columns - 1, 1 - 1 / columns, columns, device=bevs.device)
    y = torch.linspace(1 / rows - 1, 1 - 1 / rows, rows, device=bevs.device).unsqueeze(1)
    sample = affine[:, :, 0] * x + affine[:, :, 1] * y + affine[:, :, 2]  # (K, 2, H, W)
    maps = bevs.float().unflatten(1, (rows, columns)).permute(0, 3, 1, 2)  # (K, C, H, W)
    warped = functional.grid_sample(
        maps, sample.permute(0, 2, 3, 1), mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return warped.permute(0, 2, 3, 1).flatten(1, 2).to(bevs.dtype)


def _normalised(past_from_now: NDArray[np.float64], grid: BevGridConfig) -> NDArray[np.float64]:
    """Planar motions (K, 2, 3) in coordinates that run from -1 to 1 over the grid, x first."""
    low, high = np.array(grid.range[:2]), np.array(grid.range[3:5])
    center, extent = (low + high) / 2, (high - low) / 2
    rotation, translation = past_from_now[:, :2, :2], past_from_now[:, :2, 3]
    shift = (rotation @ center + translation - center) / extent
    return np.concatenate([rotation * extent / extent[:, None], shift[..., None]], axis=-1)


class BevBuffer:
    """The one place that remembers: a ring of tensors on the device, allocated with the first frame.

    Use: `admit` each new frame (applies the reset rules), `store` it, `recall` the frames that the model wants
    beside it; later, for a model that wants future ones.
    """

    def __init__(
        self, temporal: TemporalConfig, config: HistoryConfig, grid: BevGridConfig, encode_bev: EncodeBev
    ) -> None:
        """encode_bev: the model's BEV encoder; only the mode reencode calls it."""
        slots = Slots.at_interval(temporal.frames, temporal.interval_s, config.tolerance)
        self._mode, self._slots, self._config, self._grid = temporal.mode, slots, config, grid
        self._encode_bev = encode_bev
        self._spacing_ns = round(config.minimum_spacing_s * NANOSECONDS)
        self._entries: deque[_Entry] = deque()
        self._rings: tuple[Tensor, ...] = ()
        self._last: FrameRecord | None = None
        self._resets: Counter[str] = Counter()
        self.capacity = slots.capacity(self._spacing_ns)

    @property
    def resets(self) -> dict[str, int]:
        """How often the history was dropped, by reason."""
        return dict(self._resets)

    @property
    def bytes(self) -> int:
        """Device memory of the ring."""
        return sum(ring.numel() * ring.element_size() for ring in self._rings)

    @property
    def stamps_ns(self) -> tuple[int, ...]:
        """Stamps of the stored frames, oldest first."""
        return tuple(entry.stamp_ns for entry in self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def reset(self, reason: str) -> None:
        """Forget everything; the next frame sees itself in every slot."""
        self._entries.clear()
        self._last = None
        self._resets[reason] += 1
        LOGGER.info("temporal history reset: %s", reason)

    def break_before(self, frame: SurroundFrame) -> str | None:
        """The reason for which this frame will find the history dropped; None if it may use it."""
        if self._last is None:
            return None
        return reset_reason(self._last, FrameRecord.of(frame, self._last), self._config)

    def admit(self, frame: SurroundFrame) -> None:
        """Take a new frame as the present, after dropping a history that does not belong to it."""
        reason = self.break_before(frame)
        if reason is not None:
            self.reset(reason)
        self._last = FrameRecord.of(frame, self._last)

    def recall(self, now: EncodedFrame) -> Recall:
        """The model's frames around `now`, oldest first, in its BEV frame; an empty slot repeats its neighbour."""
        stamps = self.stamps_ns
        nearest = self._slots.nearest(now.stamp_ns, stamps)
        chosen = self._slots.fill(nearest)
        used = sorted({index for index in chosen if index is not None})
        bevs: dict[int | None, Tensor] = {None: now.bev}
        if used:
            entries = [self._entries[index] for index in used]
            past_from_now = np.stack([geometry.invert(entry.world_from_bev) @ now.world_from_bev for entry in entries])
            aligned = self._warp if self._mode == "warp" else self._reencode
            bevs.update(zip(used, aligned(entries, past_from_now), strict=True))
        scale = self._slots.velocity_scale(now.stamp_ns, nearest, stamps)
        return Recall(torch.stack([bevs[index] for index in chosen], dim=1), len(used), scale)

    def store(self, frame: EncodedFrame) -> None:
        """Remember a frame, unless it follows the last stored one too closely; the oldest makes room."""
        if not self.capacity or (self._entries and frame.stamp_ns - self._entries[-1].stamp_ns < self._spacing_ns):
            return
        contents = (frame.bev,) if self._mode == "warp" else frame.features
        if not self._rings:
            self._rings = tuple(item.new_zeros((self.capacity, *item.shape[1:])) for item in contents)
        full = len(self._entries) == self.capacity
        cell = self._entries.popleft().cell if full else self._free_cell()
        for ring, item in zip(self._rings, contents, strict=True):
            ring[cell].copy_(item[0])
        self._entries.append(
            _Entry(frame.stamp_ns, frame.world_from_bev, frame.image_from_bev, frame.camera_valid, cell)
        )

    def _free_cell(self) -> int:
        return (self._entries[-1].cell + 1) % self.capacity if self._entries else 0

    def _warp(self, entries: list[_Entry], past_from_now: NDArray[np.float64]) -> list[Tensor]:
        cells = torch.tensor([entry.cell for entry in entries], device=self._rings[0].device)
        return list(warp_bev(self._rings[0][cells], past_from_now, self._grid).split(1))

    def _reencode(self, entries: list[_Entry], past_from_now: NDArray[np.float64]) -> list[Tensor]:
        bevs = []
        for entry, motion in zip(entries, past_from_now, strict=True):
            features = tuple(ring[entry.cell : entry.cell + 1] for ring in self._rings)
            projection = torch.from_numpy(entry.image_from_bev @ motion)[None]
            projection = projection.to(features[0].device, torch.float32)
            bevs.append(self._encode_bev(features, projection, entry.camera_valid))
        return bevs
