"""The rolling history of BEV features: stored once, looked up by time, brought into the current BEV frame.

Shapes: T frames of the model, K stored frames in use, N cameras, H x W cells of the BEV grid, C channels.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bevformer_ros import geometry
from bevformer_ros.inference.history import FrameRecord, HistoryConfig, Slots, reset_reason
from bevformer_ros.inference.memory import upload
from bevformer_ros.model.config import BevGridConfig, TemporalConfig
from bevformer_ros.model.proposals import Proposals
from bevformer_ros.types import SECOND_NS, SurroundFrame

LOGGER = logging.getLogger(__name__)

# Image features (levels of (1, N, C, h, w)), image_from_bev (1, N, 4, 4), camera_valid (1, N) -> BEV (1, H*W, C).
EncodeBev = Callable[[tuple[Tensor, ...], Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class EncodedFrame:
    """What one frame leaves behind for later ones.

    bev: (1, H*W, C) in this frame's own BEV frame. levels: of image features, those that the BEV encoder reads, each
    (1, N, C, h, w). image_from_bev: (N, 4, 4) in float64, of this frame. camera_valid: (1, N) bool. proposals: for this
    frame's own detection.
    """

    stamp_ns: int
    world_from_bev: NDArray[np.float64]
    bev: Tensor
    levels: tuple[Tensor, ...]
    image_from_bev: NDArray[np.float64]
    camera_valid: Tensor
    proposals: Proposals | None = None


class PastFrames(NamedTuple):
    """Which stored frames the model sees, as tensors on the device: K of them, each once.

    cells: (K,) of the ring. motions: in the mode warp (K, 2, 3) as warp_bev takes them, in reencode (K, N, 4, 4) from
    the current BEV frame into the past images. camera_valid: (K, N). order: (T,) for each of the model's frames one of
    these K, or K for the current one.
    """

    cells: Tensor
    motions: Tensor
    camera_valid: Tensor
    order: Tensor


@dataclass(frozen=True)
class Recall:
    """What the host decides about the frames that one detection sees; their BEV maps are `align`'s work.

    depth: stored frames in use. velocity_scale: factor for velocities that the model reads off these frames
    (history.Slots.velocity_scale).
    """

    past: PastFrames
    depth: int
    velocity_scale: float


@dataclass(frozen=True)
class _Entry:
    stamp_ns: int
    world_from_bev: NDArray[np.float64]
    image_from_bev: NDArray[np.float64]
    camera_valid: Tensor
    cell: int


def warp_bev(bevs: Tensor, motions: Tensor, grid: BevGridConfig) -> Tensor:
    """Bring past BEV features (K, H*W, C) into the current BEV frame by ego motion; one batched bilinear sampling.

    motions: (K, 2, 3) float32, planar_motions from the current BEV frame to each past one. Cells that were out of
    range in the past become zero, as the reference's BEV augmentation leaves them.
    """
    rows, columns = grid.rows, grid.columns
    affine = motions[..., None, None]
    x = torch.linspace(1 / columns - 1, 1 - 1 / columns, columns, device=bevs.device)
    y = torch.linspace(1 / rows - 1, 1 - 1 / rows, rows, device=bevs.device).unsqueeze(1)
    sample = affine[:, :, 0] * x + affine[:, :, 1] * y + affine[:, :, 2]  # (K, 2, H, W)
    maps = bevs.float().unflatten(1, (rows, columns)).permute(0, 3, 1, 2)  # (K, C, H, W)
    warped = functional.grid_sample(
        maps, sample.permute(0, 2, 3, 1), mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return warped.permute(0, 2, 3, 1).flatten(1, 2).to(bevs.dtype)


def planar_motions(past_from_now: NDArray[np.float64], grid: BevGridConfig) -> NDArray[np.float64]:
    """(K, 2, 3), the planar part at z = 0 of motions (K, 4, 4), in coordinates from -1 to 1 over the grid, x first."""
    low, high = np.array(grid.range[:2]), np.array(grid.range[3:5])
    center, extent = (low + high) / 2, (high - low) / 2
    rotation, translation = past_from_now[:, :2, :2], past_from_now[:, :2, 3]
    shift = (rotation @ center + translation - center) / extent
    return np.concatenate([rotation * extent / extent[:, None], shift[..., None]], axis=-1)


class BevBuffer:
    """The one place that remembers: a ring of tensors on the device, allocated with the first frame.

    Use: `admit` each new frame (applies the reset rules), `store` it; then, later for a model that wants future frames,
    `recall` on the host which frames the model sees beside it, and `align` their BEV maps on the device.
    """

    def __init__(
        self, temporal: TemporalConfig, config: HistoryConfig, grid: BevGridConfig, encode_bev: EncodeBev
    ) -> None:
        """encode_bev: the model's BEV encoder; only the mode reencode calls it."""
        slots = Slots.at_interval(temporal.frames, temporal.interval_s, config.tolerance)
        self._mode, self._slots, self._config, self._grid = temporal.mode, slots, config, grid
        self._encode_bev = encode_bev
        self._spacing_ns = round(config.minimum_spacing_s * SECOND_NS)
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

    def clear(self) -> None:
        """Forget everything, uncounted; the ring's memory stays where it is."""
        self._entries.clear()
        self._last = None

    def reset(self, reason: str) -> None:
        """Forget everything; the next frame sees itself in every slot."""
        self.clear()
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
        """The stored frames for the model's slots around `now`; an empty slot repeats its neighbour."""
        stamps = self.stamps_ns
        nearest = self._slots.nearest(now.stamp_ns, stamps)
        chosen = self._slots.fill(nearest)
        used = sorted({index for index in chosen if index is not None})
        entries = [self._entries[index] for index in used]
        motions = [geometry.invert(entry.world_from_bev) @ now.world_from_bev for entry in entries]
        device = now.bev.device
        past = PastFrames(
            cells=upload(np.array([entry.cell for entry in entries], np.int64), device),
            motions=upload(self._as_inputs(entries, motions), device, torch.float32),
            camera_valid=torch.cat([now.camera_valid[:0], *(entry.camera_valid for entry in entries)]),
            order=upload(
                np.array([len(used) if index is None else used.index(index) for index in chosen], np.int64), device
            ),
        )
        return Recall(past, len(used), self._slots.velocity_scale(now.stamp_ns, nearest, stamps))

    def _as_inputs(self, entries: list[_Entry], past_from_now: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        if self._mode == "warp":
            return planar_motions(np.array(past_from_now).reshape(-1, 4, 4), self._grid)
        pairs = zip(entries, past_from_now, strict=True)
        return np.array([entry.image_from_bev @ motion for entry, motion in pairs])

    def align(self, bev: Tensor, past: PastFrames) -> Tensor:
        """BEV maps (1, T, H*W, C), oldest first and all in the current BEV frame, from the current one's (1, H*W, C)
        and the ring.

        A function of tensors alone: what differs from frame to frame lies in its arguments and in the ring's cells.
        """
        maps = bev
        if len(past.cells):
            stored = self._warp(past) if self._mode == "warp" else self._reencode(past)
            maps = torch.cat([stored, bev])
        return maps.index_select(0, past.order).unsqueeze(0)

    def store(self, frame: EncodedFrame) -> None:
        """Remember a frame, unless it follows the last stored one too closely; the oldest makes room."""
        if not self.capacity or (self._entries and frame.stamp_ns - self._entries[-1].stamp_ns < self._spacing_ns):
            return
        contents = (frame.bev,) if self._mode == "warp" else frame.levels
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

    def _warp(self, past: PastFrames) -> Tensor:
        return warp_bev(self._rings[0].index_select(0, past.cells), past.motions, self._grid)

    def _reencode(self, past: PastFrames) -> Tensor:
        """One after the other, which bounds the memory."""
        bevs = []
        for cell, projection, valid in zip(
            past.cells.split(1), past.motions.split(1), past.camera_valid.split(1), strict=True
        ):
            levels = tuple(ring.index_select(0, cell) for ring in self._rings)
            bevs.append(self._encode_bev(levels, projection, valid))
        return torch.cat(bevs)
