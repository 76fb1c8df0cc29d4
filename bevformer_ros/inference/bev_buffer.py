"""The rolling history of BEV features: stored once, looked up by time, brought into the current BEV frame.

Which frames are stored and seen, frame_history decides; here are their tensors.

Shapes: T frames of the model, K stored frames in use, N cameras, S cells of all feature levels of a camera, H x W cells
of the BEV grid, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bevformer_ros.inference.frame_history import FrameHistory, planar_motions
from bevformer_ros.inference.history import HistoryConfig
from bevformer_ros.inference.upload import upload
from bevformer_ros.model.config import BevGridConfig, TemporalConfig
from bevformer_ros.model.proposals import Proposals

# Image features (1, N, S, C), image_from_bev (1, N, 4, 4), camera_valid (1, N) -> BEV (1, H*W, C).
EncodeBev = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class EncodedFrame:
    """What one frame leaves behind for later ones.

    bev: (1, H*W, C) in this frame's own BEV frame. features: of the images as the BEV encoder reads them (1, N, S, C);
    the mode warp needs none. image_from_bev: (N, 4, 4) in float64, of this frame. camera_valid: (1, N) bool. proposals:
    for this frame's own detection.
    """

    stamp_ns: int
    world_from_bev: NDArray[np.float64]
    bev: Tensor
    features: Tensor | None
    image_from_bev: NDArray[np.float64]
    camera_valid: Tensor
    proposals: Proposals | None = None


class _View(NamedTuple):
    """What the cameras of a stored frame saw, as in EncodedFrame."""

    image_from_bev: NDArray[np.float64]
    camera_valid: Tensor


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


class BevBuffer(FrameHistory):
    """A ring of tensors on the device, allocated with the first frame.

    Use: as of FrameHistory, but `store` and `recall` frames with their tensors, and `align` on the device the BEV maps
    of those that were recalled.
    """

    def __init__(
        self, temporal: TemporalConfig, config: HistoryConfig, grid: BevGridConfig, encode_bev: EncodeBev
    ) -> None:
        """encode_bev: the model's BEV encoder; only the mode reencode calls it."""
        super().__init__(temporal, config)
        self._mode, self._grid, self._encode_bev = temporal.mode, grid, encode_bev
        self._ring: Tensor | None = None
        self._views: dict[int, _View] = {}

    @property
    def bytes(self) -> int:
        """Of the ring, on the device."""
        return 0 if self._ring is None else self._ring.nbytes

    def recall(self, now: EncodedFrame) -> Recall:
        """The stored frames for the model's slots around `now`; an empty slot repeats its neighbour."""
        choice = self.choose(now.stamp_ns, now.world_from_bev)
        views, device = [self._views[cell] for cell in choice.cells], now.bev.device
        if self._mode == "warp":
            motions = planar_motions(choice.past_from_now, self._grid)
        else:
            pairs = zip(views, choice.past_from_now, strict=True)
            motions = np.array([view.image_from_bev @ motion for view, motion in pairs])
        past = PastFrames(
            cells=upload(np.array(choice.cells, np.int64), device),
            motions=upload(motions, device, torch.float32),
            camera_valid=torch.cat([now.camera_valid[:0], *(view.camera_valid for view in views)]),
            order=upload(np.array(choice.order, np.int64), device),
        )
        return Recall(past, len(choice.cells), choice.velocity_scale)

    def align(self, bev: Tensor, past: PastFrames) -> Tensor:
        """BEV maps (1, T, H*W, C), oldest first and all in the current BEV frame, from the current one's (1, H*W, C)
        and the ring.

        A function of tensors alone: what differs from frame to frame lies in its arguments and in the ring's cells.
        """
        maps = bev
        if self._ring is not None and len(past.cells):
            stored = self._warp(self._ring, past) if self._mode == "warp" else self._reencode(self._ring, past)
            maps = torch.cat([stored, bev])
        # Cell by cell, as temporal fusion reads them.
        return maps.transpose(0, 1).index_select(1, past.order).transpose(0, 1).unsqueeze(0)

    def store(self, frame: EncodedFrame) -> None:
        """Remember a frame, unless it follows the last stored one too closely; the oldest makes room."""
        cell = self.remember(frame.stamp_ns, frame.world_from_bev)
        if cell is None:
            return
        contents = frame.bev if self._mode == "warp" else frame.features
        assert contents is not None
        if self._ring is None:
            self._ring = contents.new_zeros((self.capacity, *contents.shape[1:]))
        self._ring[cell].copy_(contents[0])
        self._views[cell] = _View(frame.image_from_bev, frame.camera_valid)

    def _warp(self, ring: Tensor, past: PastFrames) -> Tensor:
        return warp_bev(ring.index_select(0, past.cells), past.motions, self._grid)

    def _reencode(self, ring: Tensor, past: PastFrames) -> Tensor:
        """One after the other, which bounds the memory."""
        frames = zip(past.cells.split(1), past.motions.split(1), past.camera_valid.split(1), strict=True)
        return torch.cat(
            [self._encode_bev(ring.index_select(0, cell), projection, valid) for cell, projection, valid in frames]
        )
