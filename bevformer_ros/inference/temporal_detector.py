"""What every detector does, whatever runs its network: frames in their order, the history between them, boxes out."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np

from bevformer_ros import geometry
from bevformer_ros.error_model import ErrorModel
from bevformer_ros.inference.frame_history import FrameHistory, HistoryStatus
from bevformer_ros.inference.history import REQUEST
from bevformer_ros.inference.results import HostBoxes, HostProposals, detections_from
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.stage_clock import Mark, StageClock, unmarked
from bevformer_ros.types import SECOND_NS, CameraImage, Detections3D, SurroundFrame

LOGGER = logging.getLogger(__name__)

_SMALLEST_MASK = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))


class _Prepared(Protocol):
    @property
    def frame(self) -> SurroundFrame: ...


class _Encoded(Protocol):
    @property
    def stamp_ns(self) -> int: ...


Prepared = TypeVar("Prepared", bound=_Prepared)
Encoded = TypeVar("Encoded", bound=_Encoded)


class Found(NamedTuple):
    """What the network says of a frame. depth: past frames that it saw. velocity_scale: as in frame_history.Choice."""

    boxes: HostBoxes
    proposals: HostProposals | None
    depth: int
    velocity_scale: float


class TemporalDetector(ABC, Generic[Prepared, Encoded]):
    """Not safe for several threads at once.

    trained: False while the weights are random, and the boxes mean nothing.
    recommended_score_thresholds: of each class, from which on boxes are worth showing, where the weights say so.
    error_model: how far boxes may be off, where the weights say so.
    latencies_ms: of the last frame, by stage in the order in which the stages ran.

    Prepared: a frame as the network takes it. Encoded: what one frame leaves behind for later ones and for its own
    detection.
    """

    def __init__(self, config: ModelConfig, trained: bool, precision: str, history: FrameHistory) -> None:
        self.config, self.trained, self.precision = config, trained, precision
        self.recommended_score_thresholds: tuple[float, ...] | None = None
        self.error_model: ErrorModel | None = None
        self.latencies_ms: dict[str, float] = {}
        self._history = history
        self._future_ns = round(config.temporal.frames[-1] * config.temporal.interval_s * SECOND_NS)
        self._depth = 0
        if not trained:
            LOGGER.warning("%s has RANDOM weights: it runs, but its boxes mean nothing", config.name)

    @abstractmethod
    def _preprocessed(self, frame: SurroundFrame, mark: Mark) -> Prepared: ...

    @abstractmethod
    def _encode(self, prepared: Prepared, mark: Mark) -> Encoded:
        """The first half of the forward pass."""

    @abstractmethod
    def _store(self, encoded: Encoded) -> None:
        """Into the history."""

    @abstractmethod
    def _detect(self, encoded: Encoded, mark: Mark) -> Found:
        """The second half, with what the history has for this frame."""

    def _clock(self) -> StageClock:
        return StageClock()

    @property
    def _frames_to_warm_up(self) -> int:
        """An interval apart; all depths of the history."""
        return self.config.temporal.frames[-1] - self.config.temporal.frames[0] + 1

    def use_less_memory(self) -> bool:
        """Go on without CUDA graphs, whose memory is given back; False where there are none to give up."""
        return False

    @property
    def history(self) -> HistoryStatus:
        slots = len(self.config.temporal.frames) - 1
        return HistoryStatus(self._depth, slots, self._history.bytes, self._history.resets)

    def prepare(self, frame: SurroundFrame, mark: Mark = unmarked) -> Prepared:
        """Preprocess a frame ahead: another thread may do it while this detector works on the frame before, on a GPU
        beside that work.

        Raises ValueError as __call__ does.
        """
        expected = len(self.config.cameras)
        if len(frame.cameras) != expected:
            raise ValueError(
                f"the frame has {len(frame.cameras)} cameras, the detector {self.config.name} {expected}: "
                f"{', '.join(self.config.cameras)}; give None for one that is missing"
            )
        with self.preparing():
            prepared = self._preprocessed(frame, mark)
            mark("preprocess")
        return prepared

    def preparing(self) -> AbstractContextManager[object]:
        """In it, what a thread gives to a GPU is for the preparation of a frame; decoding too, where a GPU does it."""
        return nullcontext()

    def warm_up(self, masked: bool = False) -> None:
        """Detect on black images, so that no real frame pays for what libraries do but once, or for recording CUDA
        graphs, of which each depth of the history has its own: it grows as it does while driving, an interval at a
        time. The history begins anew, uncounted.

        masked: whether any of the cameras to come has masks, for which there is a graph of its own.
        """
        width, height = self.config.image.source_size
        intrinsics = np.array([[width, 0.0, width / 2], [0.0, width, height / 2], [0.0, 0.0, 1.0]])
        black = np.zeros((height, width, 3), np.uint8)
        forward = geometry.transform_from_rpy((0.0, 0.0, 0.0), (-np.pi / 2, 0.0, 0.0))
        masks = (_SMALLEST_MASK,) if masked else ()
        cameras = tuple(CameraImage(name, 0, black, intrinsics, forward, masks=masks) for name in self.config.cameras)
        interval_ns = round(self.config.temporal.interval_s * SECOND_NS)
        self._history.clear()
        for _ in self.replay(
            SurroundFrame(step * interval_ns, cameras, np.eye(4)) for step in range(self._frames_to_warm_up)
        ):
            pass
        self._history.clear()
        self._depth = 0
        self.latencies_ms = {}

    def reset(self, reason: str = REQUEST) -> None:
        """Forget the past; counted under the reason."""
        self._history.reset(reason)

    def __call__(self, frame: SurroundFrame | Prepared) -> Detections3D:
        """Boxes in the BEV frame at the frame's stamp.

        Raises ValueError for a frame with another number of cameras than the model, and where the model wants
        future frames.
        """
        if self._future_ns:
            raise ValueError(f"{self.config.name} uses future frames and cannot run live; use replay on a recording")
        clock = self._clock()
        return self._detected(self._taken(frame, clock), clock)

    def replay(self, frames: Iterable[SurroundFrame | Prepared]) -> Iterator[Detections3D]:
        """Detections of a recording, in order; a frame's follow as soon as the last frame that it needs was read.

        Consumes the recording lazily. Where the frames end, or the history breaks off, the future frames that a
        model still wanted are filled like missing past ones: by the next older.
        """
        waiting: deque[Encoded] = deque()
        for frame in frames:
            if self._history.break_before(_frame_of(frame)) is not None:
                yield from self._detect_all(waiting)
            clock = self._clock()
            encoded = self._taken(frame, clock)
            waiting.append(encoded)
            while waiting and waiting[0].stamp_ns + self._future_ns <= encoded.stamp_ns:
                yield self._detected(waiting.popleft(), clock)
        yield from self._detect_all(waiting)

    def _detect_all(self, waiting: deque[Encoded]) -> Iterator[Detections3D]:
        while waiting:
            yield self._detected(waiting.popleft(), self._clock())

    def _taken(self, given: SurroundFrame | Prepared, clock: StageClock) -> Encoded:
        """Encoded and stored."""
        self._history.admit(_frame_of(given))
        if isinstance(given, SurroundFrame):
            given = self.prepare(given, clock.mark)
        encoded = self._encode(given, clock.mark)
        self._store(encoded)
        clock.mark("store")
        return encoded

    def _detected(self, encoded: Encoded, clock: StageClock) -> Detections3D:
        found = self._detect(encoded, clock.mark)
        detections = detections_from(found.boxes, found.proposals, encoded.stamp_ns)
        self._depth = found.depth
        clock.mark("post")
        self.latencies_ms = clock.latencies_ms()
        return replace(detections, velocities=detections.velocities * found.velocity_scale)


AnyDetector: TypeAlias = TemporalDetector[Any, Any]


def _frame_of(given: SurroundFrame | Prepared) -> SurroundFrame:
    return given if isinstance(given, SurroundFrame) else given.frame
