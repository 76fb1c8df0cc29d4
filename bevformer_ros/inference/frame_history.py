"""Which frames are remembered, where, and which of them a detection sees: the part of the history that decides.

What is remembered of a frame is the business of those who store it: bev_buffer for torch, onnx_detector for ONNX
Runtime. Shapes: T frames of the model, K stored frames in use.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter, deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bevformer_ros import geometry
from bevformer_ros.inference.history import FrameRecord, HistoryConfig, Slots, reset_reason
from bevformer_ros.model.config import BevGridConfig, TemporalConfig
from bevformer_ros.types import SECOND_NS, SurroundFrame

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class HistoryStatus:
    """depth: past frames that the last detection used. slots: past frames that the model can use.

    bytes: device memory of the buffer. resets: how often the history was dropped, by reason.
    """

    depth: int
    slots: int
    bytes: int
    resets: dict[str, int]


@dataclass(frozen=True)
class Choice:
    """The frames that one detection sees beside its own, each once.

    cells: K of them, where they are stored. past_from_now: (K, 4, 4) from the current BEV frame to theirs. order: T
    numbers, for each of the model's frames one of these K, or K for the current one. velocity_scale: factor for
    velocities that the model reads off these frames (Slots.velocity_scale).
    """

    cells: tuple[int, ...]
    past_from_now: NDArray[np.float64]
    order: tuple[int, ...]
    velocity_scale: float


@dataclass(frozen=True)
class _Entry:
    stamp_ns: int
    world_from_bev: NDArray[np.float64]
    cell: int


def planar_motions(past_from_now: NDArray[np.float64], grid: BevGridConfig) -> NDArray[np.float64]:
    """(K, 2, 3), the planar part at z = 0 of motions (K, 4, 4), in coordinates from -1 to 1 over the grid, x first."""
    low, high = np.array(grid.range[:2]), np.array(grid.range[3:5])
    center, extent = (low + high) / 2, (high - low) / 2
    rotation, translation = past_from_now[:, :2, :2], past_from_now[:, :2, 3]
    shift = (rotation @ center + translation - center) / extent
    return np.concatenate([rotation * extent / extent[:, None], shift[..., None]], axis=-1)


class FrameHistory(ABC):
    """Use: `admit` each new frame, which applies the reset rules, and `remember` it; then, later for a model that wants
    future frames, `choose` which frames the model sees beside it. capacity: cells that are needed for that.
    """

    def __init__(self, temporal: TemporalConfig, config: HistoryConfig) -> None:
        self._slots = Slots.at_interval(temporal.frames, temporal.interval_s, config.tolerance)
        self._config = config
        self._spacing_ns = round(config.minimum_spacing_s * SECOND_NS)
        self._entries: deque[_Entry] = deque()
        self._last: FrameRecord | None = None
        self._resets: Counter[str] = Counter()
        self.capacity = self._slots.capacity(self._spacing_ns)

    @property
    @abstractmethod
    def bytes(self) -> int:
        """Memory of what is stored."""

    @property
    def resets(self) -> dict[str, int]:
        """How often the history was dropped, by reason."""
        return dict(self._resets)

    @property
    def stamps_ns(self) -> tuple[int, ...]:
        """Stamps of the stored frames, oldest first."""
        return tuple(entry.stamp_ns for entry in self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        """Forget everything, uncounted."""
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

    def remember(self, stamp_ns: int, world_from_bev: NDArray[np.float64]) -> int | None:
        """The cell for a frame, in which the oldest may have made room; None where nothing is stored, because the frame
        follows the last stored one too closely or the model has no history."""
        if not self.capacity or (self._entries and stamp_ns - self._entries[-1].stamp_ns < self._spacing_ns):
            return None
        full = len(self._entries) == self.capacity
        cell = self._entries.popleft().cell if full else self._free_cell()
        self._entries.append(_Entry(stamp_ns, world_from_bev, cell))
        return cell

    def choose(self, stamp_ns: int, world_from_bev: NDArray[np.float64]) -> Choice:
        """The stored frames for the model's slots around a frame; an empty slot repeats its neighbour."""
        stamps = self.stamps_ns
        nearest = self._slots.nearest(stamp_ns, stamps)
        chosen = self._slots.fill(nearest)
        used = sorted({index for index in chosen if index is not None})
        entries = [self._entries[index] for index in used]
        motions = [geometry.invert(entry.world_from_bev) @ world_from_bev for entry in entries]
        return Choice(
            cells=tuple(entry.cell for entry in entries),
            past_from_now=np.array(motions).reshape(-1, 4, 4),
            order=tuple(len(used) if index is None else used.index(index) for index in chosen),
            velocity_scale=self._slots.velocity_scale(stamp_ns, nearest, stamps),
        )

    def _free_cell(self) -> int:
        return (self._entries[-1].cell + 1) % self.capacity if self._entries else 0
