"""From a surround frame to boxes: the detector as a plain Python object, without ROS.

    detector = load_detector("config/models/bevformerv2_r50_t2.yaml", "t2.safetensors", device="cuda")
    for frame in frames:                     # SurroundFrame: images with calibration, pose of the BEV frame, stamp
        detections = detector(frame)         # Detections3D in the BEV frame at frame.stamp_ns

Frames are given in order of time; history is kept inside, and dropped by itself where they do not belong together.
For a recording, `detector.replay(frames)` yields the same, and serves models with future frames too.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from bevformer_ros import geometry
from bevformer_ros.config import load_yaml
from bevformer_ros.inference import stages
from bevformer_ros.inference.bev_buffer import BevBuffer, EncodedFrame, PastFrames
from bevformer_ros.inference.graphs import CudaGraphs, GraphRunner, Mark, unmarked
from bevformer_ros.inference.history import MODEL_CHANGE, REQUEST, HistoryConfig
from bevformer_ros.inference.memory import keep_freed_memory, upload
from bevformer_ros.inference.network_preparation import prepare_for_inference
from bevformer_ros.inference.preprocessing import NetworkInput, Preprocessor
from bevformer_ros.inference.results import detections_from
from bevformer_ros.model.checkpoint import load_weights, read_checkpoint
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.model.network import BEVFormerV2, build_network
from bevformer_ros.model.proposals import Proposals
from bevformer_ros.types import SECOND_NS, CameraImage, Detections3D, SurroundFrame

LOGGER = logging.getLogger(__name__)

Precision = Literal["float32", "bfloat16", "float16"]


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
class PreparedFrame:
    """A frame with what the network is given for it."""

    frame: SurroundFrame
    inputs: NetworkInput


@dataclass(frozen=True)
class _Encoded:
    """A frame between encoding and detection: at once in a live stream, later where the model wants future frames."""

    frame: EncodedFrame
    proposals: Proposals | None


class Detector:
    """Owns the network, its device and the one BevBuffer. Not safe for several threads at once.

    The model given is changed in place (model.inference).

    trained: False while the weights are random, and the boxes mean nothing.
    recommended_score_threshold: from which on boxes are worth showing, where the weights say so.
    latencies_ms: of the last frame, by stage in the order in which the stages ran; on a GPU all stages up to the BEV
    map are "encode" and all from the history to the boxes "detect", because each runs as one CUDA graph.
    """

    def __init__(
        self,
        model: BEVFormerV2,
        trained: bool,
        device: str = "cpu",
        precision: Precision = "float32",
        history: HistoryConfig | None = None,
        cuda_graphs: bool = True,
    ) -> None:
        self.config: ModelConfig = model.config
        self.trained = trained
        self.recommended_score_threshold: float | None = None
        self.latencies_ms: dict[str, float] = {}
        self._device = torch.device(device)
        self._dtype = getattr(torch, precision)
        self._cuda_graphs = cuda_graphs
        self._model = prepare_for_inference(model, self._device, self._dtype)
        self._preprocess = Preprocessor(self.config.image, self._device)
        self._buffer = BevBuffer(self.config.temporal, history or HistoryConfig(), self.config.bev, self._encode_past)
        self._run = self._runner()
        self._future_ns = round(self.config.temporal.frames[-1] * self.config.temporal.interval_s * SECOND_NS)
        self._depth = 0
        if not trained:
            LOGGER.warning("%s has RANDOM weights: it runs, but its boxes mean nothing", self.config.name)

    @property
    def network(self) -> BEVFormerV2:
        """As it runs: see model.inference."""
        return self._model

    def prepare(self, frame: SurroundFrame, mark: Mark = unmarked) -> PreparedFrame:
        """Preprocess a frame ahead: another thread may do it while this detector works on the frame before.

        Raises ValueError as __call__ does.
        """
        expected = len(self.config.cameras)
        if len(frame.cameras) != expected:
            raise ValueError(
                f"the frame has {len(frame.cameras)} cameras, the model {self.config.name} {expected}: "
                f"{', '.join(self.config.cameras)}; give None for one that is missing"
            )
        return PreparedFrame(frame, self._preprocess(frame, mark))

    @property
    def history(self) -> HistoryStatus:
        slots = len(self.config.temporal.frames) - 1
        return HistoryStatus(self._depth, slots, self._buffer.bytes, self._buffer.resets)

    def warm_up(self) -> None:
        """Detect on black images, so that no real frame pays for what libraries do but once, or for recording CUDA
        graphs, of which each depth of the history has its own. The history begins anew, uncounted."""
        width, height = self.config.image.source_size
        intrinsics = np.array([[width, 0.0, width / 2], [0.0, width, height / 2], [0.0, 0.0, 1.0]])
        black = np.zeros((height, width, 3), np.uint8)
        forward = geometry.transform_from_rpy((0.0, 0.0, 0.0), (-np.pi / 2, 0.0, 0.0))
        cameras = tuple(CameraImage(name, 0, black, intrinsics, forward) for name in self.config.cameras)
        interval_ns = round(self.config.temporal.interval_s * SECOND_NS)
        count = len(self.config.temporal.frames) if self._device.type == "cuda" else 1
        self._buffer.clear()
        for _ in self.replay(SurroundFrame(step * interval_ns, cameras, np.eye(4)) for step in range(count)):
            pass
        self._buffer.clear()
        self._depth = 0
        self.latencies_ms = {}

    def _runner(self) -> GraphRunner:
        return GraphRunner(CudaGraphs(self._device) if self._device.type == "cuda" and self._cuda_graphs else None)

    def reset(self, reason: str = REQUEST) -> None:
        """Forget the past; counted under the reason."""
        self._buffer.reset(reason)

    def load_weights(self, path: str | Path) -> None:
        """Exchange the weights of the running model, strictly; the history of the old ones is dropped."""
        network = _random_network(self.config, seed=0)
        load_weights(network, read_checkpoint(path).weights)
        self._model = prepare_for_inference(network, self._device, self._dtype)
        self._run = self._runner()
        self.trained = True
        self.reset(MODEL_CHANGE)

    def __call__(self, frame: SurroundFrame | PreparedFrame) -> Detections3D:
        """Boxes in the BEV frame at the frame's stamp.

        Raises ValueError for a frame with another number of cameras than the model, and where the model wants
        future frames.
        """
        if self._future_ns:
            raise ValueError(f"{self.config.name} uses future frames and cannot run live; use replay on a recording")
        (detections,) = self.replay([frame])
        return detections

    def replay(self, frames: Iterable[SurroundFrame | PreparedFrame]) -> Iterator[Detections3D]:
        """Detections of a recording, in order; a frame's follow as soon as the last frame that it needs was read.

        Consumes the recording lazily. Where the frames end, or the history breaks off, the future frames that a
        model still wanted are filled like missing past ones: by the next older.
        """
        waiting: deque[_Encoded] = deque()
        for given in frames:
            frame = given.frame if isinstance(given, PreparedFrame) else given
            if self._buffer.break_before(frame) is not None:
                yield from self._detect_all(waiting)
            clock = StageClock(self._device)
            with torch.inference_mode():
                self._buffer.admit(frame)
                waiting.append(self._encode(given, clock))
                self._buffer.store(waiting[-1].frame)
                clock.mark("store")
            while waiting and waiting[0].frame.stamp_ns + self._future_ns <= frame.stamp_ns:
                yield self._detect(waiting.popleft(), clock)
        yield from self._detect_all(waiting)

    def _detect_all(self, waiting: deque[_Encoded]) -> Iterator[Detections3D]:
        while waiting:
            yield self._detect(waiting.popleft(), StageClock(self._device))

    def _encode(self, given: SurroundFrame | PreparedFrame, clock: StageClock) -> _Encoded:
        if isinstance(given, SurroundFrame):
            given = self.prepare(given, clock.mark)
            clock.mark("preprocess")
        frame, entry = given.frame, given.inputs
        matrices = (entry.intrinsics, entry.camera_from_bev, entry.image_from_bev)
        encoded: stages.Encoded = self._run(
            "encode",
            partial(stages.encode, self._model),
            clock.mark,
            entry.images,
            entry.camera_valid,
            *(upload(matrix[None], self._device, torch.float32) for matrix in matrices),
        )
        bev, proposals = encoded.bev, encoded.proposals
        if self._future_ns:  # outputs of a graph last until the next frame only
            bev = bev.clone()
            proposals = proposals and Proposals(*(values.clone() for values in proposals))
        remembered = EncodedFrame(
            frame.stamp_ns, frame.world_from_bev, bev, encoded.features, entry.image_from_bev, entry.camera_valid
        )
        return _Encoded(remembered, proposals)

    @torch.inference_mode()
    def _detect(self, encoded: _Encoded, clock: StageClock) -> Detections3D:
        plan = self._buffer.plan(encoded.frame)
        detected: stages.DetectedBoxes = self._run(
            "detect", self._boxes_of, clock.mark, encoded.frame.bev, *plan.past, *(encoded.proposals or ())
        )
        detections = detections_from(detected, encoded.proposals, encoded.frame.stamp_ns)
        detections = replace(detections, velocities=detections.velocities * plan.velocity_scale)
        self._depth = plan.depth
        clock.mark("post")
        self.latencies_ms = clock.latencies_ms()
        return detections

    def _boxes_of(self, mark: Mark, bev: Tensor, *tensors: Tensor) -> stages.DetectedBoxes:
        past, proposals = tensors[: len(PastFrames._fields)], tensors[len(PastFrames._fields) :]
        return stages.detect(
            self._model, self._buffer, mark, bev, PastFrames(*past), Proposals(*proposals) if proposals else None
        )

    def _encode_past(self, features: tuple[Tensor, ...], image_from_bev: Tensor, camera_valid: Tensor) -> Tensor:
        width, height = self.config.image.padded_size
        return self._model.encode_bev(features, image_from_bev, camera_valid, (height, width))


class StageClock:
    """Milliseconds per stage; on a GPU by events on its stream, so that nothing waits before the last one."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        self._stages: list[str] = []
        self._times: list[float] = []
        self._events: list[torch.cuda.Event] = []
        self.mark("start")

    def mark(self, stage: str) -> None:
        """The stage ends here."""
        self._stages.append(stage)
        if self._stream is not None:
            self._events.append(torch.cuda.Event(enable_timing=True))
            self._events[-1].record(self._stream)
        else:
            self._times.append(1000 * time.perf_counter())

    def latencies_ms(self) -> dict[str, float]:
        """By stage, in the order of the marks."""
        if self._stream is not None:
            self._events[-1].synchronize()
            spans = [before.elapsed_time(after) for before, after in pairwise(self._events)]
        else:
            spans = [after - before for before, after in pairwise(self._times)]
        return dict(zip(self._stages[1:], spans, strict=True))


def _random_network(config: ModelConfig, seed: int) -> BEVFormerV2:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network(config)


def load_detector(
    model: str | Path,
    weights: str | Path | None = None,
    device: str = "cpu",
    precision: Precision = "float32",
    history: HistoryConfig | None = None,
    seed: int = 0,
) -> Detector:
    """A detector from files.

    model: a model configuration (.yaml), or a .safetensors file of ours, which holds configuration and weights.
    weights: an official .pth or a .safetensors file; without any the weights are random, from the seed.
    Raises ValueError that names the file and what is wrong with it.
    """
    keep_freed_memory()
    model = Path(model)
    if precision not in get_args(Precision):
        raise ValueError(f"precision is {precision!r}, expected one of {', '.join(get_args(Precision))}")
    checkpoint = read_checkpoint(model) if model.suffix == ".safetensors" else None
    config = checkpoint.config if checkpoint is not None else load_yaml(ModelConfig, model)
    assert config is not None
    if weights is not None:
        checkpoint = read_checkpoint(weights)
        _require_same(config, model, checkpoint.config, Path(weights))
    network = _random_network(config, seed)
    if checkpoint is not None:
        load_weights(network, checkpoint.weights)
    detector = Detector(network, checkpoint is not None, device, precision, history)
    if checkpoint is not None:
        detector.recommended_score_threshold = checkpoint.score_threshold
    return detector


def _require_same(config: ModelConfig, model: Path, inside: ModelConfig | None, weights: Path) -> None:
    """Weights that hold a configuration were trained with it."""
    if inside is None:
        return
    own, other = asdict(config), asdict(inside)
    differing = [
        f"{key} {own[key]!r} against {other[key]!r}" for key in own if key != "name" and own[key] != other[key]
    ]
    if differing:
        raise ValueError(
            f"{weights} was trained with another configuration than {model}: {'; '.join(differing)}. Use it alone, as "
            "the model, or take the configuration that it was trained with"
        )
