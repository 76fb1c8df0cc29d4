"""From a surround frame to boxes: the detector as a plain Python object, without ROS.

    detector = load_detector("bevformerv2_r50_t2", "t2.safetensors", device="cuda")
    for frame in frames:                     # SurroundFrame: images with calibration, pose of the BEV frame, stamp
        detections = detector(frame)         # Detections3D in the BEV frame at frame.stamp_ns

Frames are given in order of time; history is kept inside, and dropped by itself where they do not belong together.
For a recording, `detector.replay(frames)` yields the same, and serves models with future frames too.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_map_only

from bevformer_ros.config import load_yaml
from bevformer_ros.inference import stages
from bevformer_ros.inference.bev_buffer import BevBuffer, EncodedFrame
from bevformer_ros.inference.choices import Precision, PrecisionChoice
from bevformer_ros.inference.gpu_clock import clock_on
from bevformer_ros.inference.graphs import CudaGraphs, GraphRunner
from bevformer_ros.inference.history import HistoryConfig
from bevformer_ros.inference.memory import keep_freed_memory
from bevformer_ros.inference.network_preparation import fit_to_cameras, prepare_for_inference
from bevformer_ros.inference.packing import Download, Packed
from bevformer_ros.inference.precision import resolve_device, resolve_precision
from bevformer_ros.inference.preprocessing import PreparedFrame, Preprocessor
from bevformer_ros.inference.results import HostBoxes, HostProposals
from bevformer_ros.inference.streams import PreparationStream
from bevformer_ros.inference.temporal_detector import Found, TemporalDetector
from bevformer_ros.model.checkpoint import load_weights, read_checkpoint
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.model.network import BEVFormerV2, Encoded, build_network
from bevformer_ros.resources import model_file
from bevformer_ros.stage_clock import Mark, StageClock, unmarked
from bevformer_ros.types import SurroundFrame


class Detector(TemporalDetector[PreparedFrame, EncodedFrame]):
    """In torch: owns the network, its device and the one BevBuffer.

    network: as it runs; the one that was given, changed in place (network_preparation).
    latencies_ms: on a GPU all stages up to the BEV map are "encode" and all from the history to the boxes "detect",
    because each runs as one CUDA graph.
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
        self._device = torch.device(device)
        self.network = prepare_for_inference(network, self._device, getattr(torch, precision))
        config = network.config
        self._preprocess = Preprocessor(config.image, self._device)
        self._preparation = PreparationStream(self._device)
        self._buffer = BevBuffer(config.temporal, history or HistoryConfig(), config.bev, self.network.encode_bev)
        graphs = CudaGraphs(self._device) if self._device.type == "cuda" and cuda_graphs else None
        self._run = GraphRunner(graphs)
        self._download = Download(self._device)
        super().__init__(config, trained, precision, self._buffer)

    @property
    def _frames_to_warm_up(self) -> int:
        return super()._frames_to_warm_up if self._run.records else 1

    def preparing(self) -> AbstractContextManager[object]:
        return self._preparation.preparing()

    def use_less_memory(self) -> bool:
        return self._run.stop_recording()

    @torch.inference_mode()
    def bev_norms(self, frame: SurroundFrame) -> NDArray:
        """(rows, columns) lengths of the feature vectors in the cells of a frame's own BEV map, the first at the least
        y and x. The history stays as it is. Raises ValueError as __call__ does."""
        encoded = self._encode(self.prepare(frame), unmarked)
        grid = self.config.bev
        norms: NDArray = encoded.bev[0].float().norm(dim=-1).reshape(grid.rows, grid.columns).cpu().numpy()
        return norms

    def _clock(self) -> StageClock:
        return clock_on(self._device)

    def _preprocessed(self, frame: SurroundFrame, mark: Mark) -> PreparedFrame:
        return self._preprocess(frame, mark)

    @torch.inference_mode()
    def _encode(self, prepared: PreparedFrame, mark: Mark) -> EncodedFrame:
        with self._preparation.reading(prepared):
            inputs = prepared.network_inputs()
            encoded: Encoded = self._run("encode", self.network.encode, mark, inputs, prepared.seen)
        bev, proposals = encoded.bev, encoded.proposals
        if self._future_ns:  # outputs of a graph last until the next frame only
            bev, proposals = tree_map_only(Tensor, Tensor.clone, (bev, proposals))
        frame = prepared.frame
        return EncodedFrame(
            frame.stamp_ns,
            frame.world_from_bev,
            bev,
            encoded.features,
            prepared.image_from_bev,
            inputs.camera_valid,
            proposals,
        )

    @torch.inference_mode()
    def _store(self, encoded: EncodedFrame) -> None:
        self._buffer.store(encoded)

    @torch.inference_mode()
    def _detect(self, encoded: EncodedFrame, mark: Mark) -> Found:
        recall = self._buffer.recall(encoded)
        detect = partial(stages.detect, self.network, self._buffer)
        packed: Packed = self._run("detect", detect, mark, encoded.bev, recall.past, encoded.proposals)
        arrays = self._download(packed)
        count = len(HostBoxes._fields)
        proposals = None if encoded.proposals is None else HostProposals(*arrays[count:])
        return Found(HostBoxes(*arrays[:count]), proposals, recall.depth, recall.velocity_scale)


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
