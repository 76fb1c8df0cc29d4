"""From a surround frame to boxes: the detector as a plain Python object, without ROS.

    detector = load_detector("bevformerv2_r50_t2", "t2.safetensors", device="cuda")
    for frame in frames:                     # SurroundFrame: images with calibration, pose of the BEV frame, stamp
        detections = detector(frame)         # Detections3D in the BEV frame at frame.stamp_ns

Frames are given in order of time; history is kept inside, and dropped by itself where they do not belong together.
For a recording, `detector.replay(frames)` yields the same, and serves models with future frames too.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from bevformer_ros import geometry
from bevformer_ros.config import load_yaml
from bevformer_ros.error_model import ErrorModel
from bevformer_ros.inference import stages
from bevformer_ros.inference.bev_buffer import BevBuffer, EncodedFrame
from bevformer_ros.inference.graphs import CudaGraphs, GraphRunner
from bevformer_ros.inference.history import REQUEST, HistoryConfig
from bevformer_ros.inference.memory import keep_freed_memory
from bevformer_ros.inference.network_preparation import fit_to_cameras, prepare_for_inference
from bevformer_ros.inference.precision import Precision, PrecisionChoice, resolve_device, resolve_precision
from bevformer_ros.inference.preprocessing import PreparedFrame, Preprocessor
from bevformer_ros.inference.results import detections_from
from bevformer_ros.model.checkpoint import load_weights, read_checkpoint
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.model.network import BEVFormerV2, Encoded, build_network
from bevformer_ros.resources import model_file
from bevformer_ros.stage_clock import Mark, StageClock, unmarked
from bevformer_ros.types import SECOND_NS, CameraImage, Detections3D, SurroundFrame

LOGGER = logging.getLogger(__name__)

_SMALLEST_MASK = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))


@dataclass(frozen=True)
class HistoryStatus:
    """depth: past frames that the last detection used. slots: past frames that the model can use.

    bytes: device memory of the buffer. resets: how often the history was dropped, by reason.
    """

    depth: int
    slots: int
    bytes: int
    resets: dict[str, int]


class Detector:
    """Owns the network, its device and the one BevBuffer. Not safe for several threads at once.

    network: as it runs; the one that was given, changed in place (network_preparation).
    trained: False while the weights are random, and the boxes mean nothing.
    recommended_score_thresholds: of each class, from which on boxes are worth showing, where the weights say so.
    error_model: how far boxes may be off, where the weights say so.
    latencies_ms: of the last frame, by stage in the order in which the stages ran; on a GPU all stages up to the BEV
    map are "encode" and all from the history to the boxes "detect", because each runs as one CUDA graph.
    """

    def __init__(
        self,
        network: BEVFormerV2,
        trained: bool,
        device: str = "cpu",
        precision: Precision = "float32",
        history: HistoryConfig | None = None,
        cuda_graphs: bool = True,
    ) -> None:
        self.config: ModelConfig = network.config
        self.trained = trained
        self.recommended_score_thresholds: tuple[float, ...] | None = None
        self.error_model: ErrorModel | None = None
        self.latencies_ms: dict[str, float] = {}
        self._device = torch.device(device)
        self.precision = precision
        self.network = prepare_for_inference(network, self._device, getattr(torch, precision))
        self._preprocess = Preprocessor(self.config.image, self._device)
        history = history or HistoryConfig()
        self._buffer = BevBuffer(self.config.temporal, history, self.config.bev, self.network.encode_bev)
        graphs = CudaGraphs(self._device) if self._device.type == "cuda" and cuda_graphs else None
        self._run = GraphRunner(graphs)
        self._future_ns = round(self.config.temporal.frames[-1] * self.config.temporal.interval_s * SECOND_NS)
        self._depth = 0
        if not trained:
            LOGGER.warning("%s has RANDOM weights: it runs, but its boxes mean nothing", self.config.name)

    def prepare(self, frame: SurroundFrame, mark: Mark = unmarked) -> PreparedFrame:
        """Preprocess a frame ahead: another thread may do it while this detector works on the frame before.

        Raises ValueError as __call__ does.
        """
        expected = len(self.config.cameras)
        if len(frame.cameras) != expected:
            raise ValueError(
                f"the frame has {len(frame.cameras)} cameras, the detector {self.config.name} {expected}: "
                f"{', '.join(self.config.cameras)}; give None for one that is missing"
            )
        return self._preprocess(frame, mark)

    @property
    def history(self) -> HistoryStatus:
        slots = len(self.config.temporal.frames) - 1
        return HistoryStatus(self._depth, slots, self._buffer.bytes, self._buffer.resets)

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
        frames = self.config.temporal.frames
        count = frames[-1] - frames[0] + 1 if self._run.records else 1
        self._buffer.clear()
        for _ in self.replay(SurroundFrame(step * interval_ns, cameras, np.eye(4)) for step in range(count)):
            pass
        self._buffer.clear()
        self._depth = 0
        self.latencies_ms = {}

    def use_less_memory(self) -> bool:
        """Go on without CUDA graphs, whose memory is given back; False where there are none to give up."""
        return self._run.stop_recording()

    def reset(self, reason: str = REQUEST) -> None:
        """Forget the past; counted under the reason."""
        self._buffer.reset(reason)

    def __call__(self, frame: SurroundFrame | PreparedFrame) -> Detections3D:
        """Boxes in the BEV frame at the frame's stamp.

        Raises ValueError for a frame with another number of cameras than the model, and where the model wants
        future frames.
        """
        if self._future_ns:
            raise ValueError(f"{self.config.name} uses future frames and cannot run live; use replay on a recording")
        clock = StageClock(self._device)
        encoded = self._encode(frame, clock)
        self._store(encoded, clock)
        return self._detect(encoded, clock)

    def replay(self, frames: Iterable[SurroundFrame | PreparedFrame]) -> Iterator[Detections3D]:
        """Detections of a recording, in order; a frame's follow as soon as the last frame that it needs was read.

        Consumes the recording lazily. Where the frames end, or the history breaks off, the future frames that a
        model still wanted are filled like missing past ones: by the next older.
        """
        waiting: deque[EncodedFrame] = deque()
        for frame in frames:
            if self._buffer.break_before(frame.frame if isinstance(frame, PreparedFrame) else frame) is not None:
                yield from self._detect_all(waiting)
            clock = StageClock(self._device)
            encoded = self._encode(frame, clock)
            self._store(encoded, clock)
            waiting.append(encoded)
            while waiting and waiting[0].stamp_ns + self._future_ns <= encoded.stamp_ns:
                yield self._detect(waiting.popleft(), clock)
        yield from self._detect_all(waiting)

    def _detect_all(self, waiting: deque[EncodedFrame]) -> Iterator[Detections3D]:
        while waiting:
            yield self._detect(waiting.popleft(), StageClock(self._device))

    @torch.inference_mode()
    def _encode(self, given: SurroundFrame | PreparedFrame, clock: StageClock) -> EncodedFrame:
        self._buffer.admit(given.frame if isinstance(given, PreparedFrame) else given)
        if isinstance(given, SurroundFrame):
            given = self.prepare(given, clock.mark)
            clock.mark("preprocess")
        encoded: Encoded = self._run("encode", self.network.encode, clock.mark, given.network_inputs(), given.seen)
        bev, proposals = encoded.bev, encoded.proposals
        if self._future_ns:  # outputs of a graph last until the next frame only
            bev, proposals = tree_map_only(Tensor, Tensor.clone, (bev, proposals))
        frame = given.frame
        return EncodedFrame(
            frame.stamp_ns,
            frame.world_from_bev,
            bev,
            encoded.levels,
            given.image_from_bev,
            given.camera_valid,
            proposals,
        )

    @torch.inference_mode()
    def _store(self, encoded: EncodedFrame, clock: StageClock) -> None:
        self._buffer.store(encoded)
        clock.mark("store")

    @torch.inference_mode()
    def _detect(self, encoded: EncodedFrame, clock: StageClock) -> Detections3D:
        recall = self._buffer.recall(encoded)
        detect = partial(stages.detect, self.network, self._buffer)
        detected: stages.DetectedBoxes = self._run(
            "detect", detect, clock.mark, encoded.bev, recall.past, encoded.proposals
        )
        detections = detections_from(detected, encoded.proposals, encoded.stamp_ns)
        self._depth = recall.depth
        clock.mark("post")
        self.latencies_ms = clock.latencies_ms()
        return replace(detections, velocities=detections.velocities * recall.velocity_scale)


def load_detector(
    model: str | Path,
    weights: str | Path | None = None,
    device: str = "cpu",
    precision: PrecisionChoice = "float32",
    history: HistoryConfig | None = None,
    seed: int = 0,
    model_cameras: Mapping[str, str] | None = None,
) -> Detector:
    """A detector from files.

    model: a name in weights/ or config/models ("demo"), a model configuration (.yaml), or a .safetensors file of ours,
    which holds configuration and weights.
    weights: an official .pth or a .safetensors file; without any the weights are random, from the seed.
    device, precision: `auto` takes what fits the machine, see inference.precision.
    model_cameras: for each camera of the frames to come, in their order, the model's whose embedding it takes
    (RigConfig.model_cameras); without, the frames have the model's own cameras.
    Raises ValueError that names the file and what is wrong with it, and for a device that is not there.
    """
    keep_freed_memory()
    model = model_file(str(model))
    device = resolve_device(device)
    arithmetic = resolve_precision(precision, device)
    checkpoint = read_checkpoint(model) if model.suffix == ".safetensors" else None
    config = checkpoint.config if checkpoint is not None else load_yaml(ModelConfig, model)
    assert config is not None
    if weights is not None:
        checkpoint = read_checkpoint(weights)
        _require_same(config, model, checkpoint.config, Path(weights))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(config)
    if checkpoint is not None:
        load_weights(network, checkpoint.weights)
    if model_cameras is not None:
        fit_to_cameras(network, model_cameras)
    detector = Detector(network, checkpoint is not None, device, arithmetic, history)
    if checkpoint is not None:
        detector.recommended_score_thresholds = checkpoint.score_thresholds
        detector.error_model = checkpoint.error_model
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
