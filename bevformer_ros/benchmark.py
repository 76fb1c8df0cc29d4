"""`bevformer-ros benchmark`: how long each stage of the network takes for one set of images, and how much memory.

A model of reduced precision is also compared with the same weights in float32.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import sys
from dataclasses import asdict, dataclass
from statistics import median
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from bevformer_ros import geometry
from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.memory import keep_freed_memory
from bevformer_ros.model.box_coding import decode_boxes
from bevformer_ros.model.checkpoint import load_weights, read_checkpoint
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.model.detector import BEVFormerV2, build_detector
from bevformer_ros.model.inference import prepare_for_inference
from bevformer_ros.pipeline import Precision, StageClock
from bevformer_ros.preprocess import ImagePlan
from bevformer_ros.share import config_file
from bevformer_ros.simulation.rig import surround_rig


@dataclass(frozen=True)
class Inputs:
    """One set of images as the methods of BEVFormerV2 take it, (1, N, ...) each."""

    images: Tensor
    image_from_bev: Tensor
    intrinsics: Tensor
    camera_from_bev: Tensor


@dataclass(frozen=True)
class Report:
    """stages_ms: median of the repeats. peak_memory_mb: of the process on a CPU, of the device's tensors on a GPU.

    error: largest difference from float32 by stage, relative to the largest value; empty in float32.
    """

    model: str
    device: str
    precision: str
    threads: int
    repeats: int
    parameters: int
    stages_ms: dict[str, float]
    total_ms: float
    peak_memory_mb: float
    error: dict[str, float]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="bevformerv2_r50_t1_base", help="name in config/models, or a YAML file")
    parser.add_argument("--weights", help="an official .pth or our .safetensors; random without")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default %(default)s)")
    parser.add_argument("--precision", choices=get_args(Precision), default="float32", help="(default %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs after one to warm up (default %(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(arguments: argparse.Namespace) -> int:
    if arguments.repeats < 1:
        raise ValueError(f"--repeats must be at least 1, got {arguments.repeats}")
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    config = load_yaml(ModelConfig, config_file("models", arguments.model))
    torch.manual_seed(0)
    detector = build_detector(config).eval()
    if arguments.weights:
        load_weights(detector, read_checkpoint(arguments.weights).weights)
    report = measure(detector, torch.device(arguments.device), arguments.precision, arguments.repeats)
    print(json.dumps(asdict(report), indent=2) if arguments.json else table(report))
    return 0


def measure(detector: BEVFormerV2, device: torch.device, precision: Precision, repeats: int) -> Report:
    """Time the detector, which is moved to the device and cast."""
    inputs = noise_seen_by_the_simulated_rig(detector.config, device)
    dtype = getattr(torch, precision)
    reference: dict[str, Tensor] = {}
    if dtype != torch.float32:
        reference = _one_pass(copy.deepcopy(detector).to(device), inputs, StageClock(device))
    detector = prepare_for_inference(detector, device, dtype)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    result = _one_pass(detector, inputs, StageClock(device))
    runs = []
    for _ in range(repeats):
        clock = StageClock(device)
        _one_pass(detector, inputs, clock)
        runs.append(clock.latencies_ms())
    stages = {stage: median(latencies[stage] for latencies in runs) for stage in runs[0]}
    return Report(
        model=detector.config.name,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        precision=precision,
        threads=torch.get_num_threads(),
        repeats=repeats,
        parameters=sum(parameter.numel() for parameter in detector.parameters()),
        stages_ms=stages,
        total_ms=median(sum(latencies.values()) for latencies in runs),
        peak_memory_mb=_peak_memory_mb(device),
        error={stage: _relative_error(result[stage], expected) for stage, expected in reference.items()},
    )


@torch.inference_mode()
def _one_pass(detector: BEVFormerV2, inputs: Inputs, clock: StageClock) -> dict[str, Tensor]:
    """One frame with a full history; results by name, for comparison."""
    config = detector.config
    levels = detector.backbone(inputs.images[0])
    clock.mark("backbone")
    features = tuple(level.unsqueeze(0) for level in detector.neck(levels))
    clock.mark("neck")
    proposals = detector.propose(features, inputs.intrinsics, inputs.camera_from_bev)
    if proposals is not None:
        clock.mark("perspective head")
    image_size = (inputs.images.shape[-2], inputs.images.shape[-1])
    bev = detector.encode_bev(features, inputs.image_from_bev, None, image_size)
    clock.mark("BEV encoder")
    frames = len(config.temporal.frames)
    if config.temporal.mode == "reencode" and frames > 1:
        for _ in range(frames - 1):
            detector.encode_bev(features, inputs.image_from_bev, None, image_size)
        clock.mark(f"BEV encoder, {frames - 1} past frames")
    if frames > 1:
        bev = detector.fuse(bev.unsqueeze(1).expand(-1, frames, -1, -1))
        clock.mark("temporal fusion")
    output = detector.decode(bev, proposals)
    clock.mark("decoder")
    decode_boxes(
        output.class_logits[-1],
        output.box_codes[-1],
        config.max_detections,
        config.score_threshold,
        output.padding_mask,
    )
    clock.mark("boxes")
    learned = ~output.from_proposal  # proposals may come in another order
    return {
        "image features": features[0],
        "BEV map": bev,
        "class logits": output.class_logits[:, :, learned],
        "box codes": output.box_codes[:, :, learned],
    }


def noise_seen_by_the_simulated_rig(config: ModelConfig, device: torch.device) -> Inputs:
    """Normal noise for images; the cameras of the simulated car, as many as the model has."""
    width, height = config.image.padded_size
    cameras = surround_rig(*config.image.source_size)
    if len(config.cameras) > len(cameras):
        raise ValueError(f"the simulated rig has {len(cameras)} cameras, the model {len(config.cameras)}")
    cameras = cameras[: len(config.cameras)]
    bev_frame = load_yaml(RigConfig, config_file("rigs", "nuscenes")).bev_frame
    base_from_bev = geometry.transform_from_rpy(bev_frame.translation, bev_frame.roll_pitch_yaw)
    plan = ImagePlan.for_size(config.image, *config.image.source_size)
    intrinsics = np.stack([plan.intrinsics(camera.intrinsics) for camera in cameras])
    camera_from_bev = np.stack([geometry.invert(camera.base_from_camera) @ base_from_bev for camera in cameras])
    image_from_bev = camera_from_bev.copy()
    image_from_bev[:, :3] = intrinsics @ camera_from_bev[:, :3]
    images = 50 * torch.randn(1, len(cameras), 3, height, width, generator=torch.Generator().manual_seed(0))
    matrices = (torch.from_numpy(matrix)[None].float() for matrix in (image_from_bev, intrinsics, camera_from_bev))
    return Inputs(*(tensor.to(device) for tensor in (images, *matrices)))


def _relative_error(actual: Tensor, expected: Tensor) -> float:
    return float((actual.float() - expected).abs().max() / expected.abs().max())


def _peak_memory_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def table(report: Report) -> str:
    size = f"{report.parameters / 1e6:.1f} M parameters"
    lines = [
        f"{report.model}, {size}, {report.precision} on {report.device}, {report.threads} CPU threads",
        f"median of {report.repeats}",
        *(f"  {stage:<30}{milliseconds:>12.1f} ms" for stage, milliseconds in report.stages_ms.items()),
        f"  {'all':<30}{report.total_ms:>12.1f} ms",
        f"  {'peak memory':<30}{report.peak_memory_mb:>12.0f} MB",
    ]
    if report.error:
        lines.append("largest error against float32, relative to the largest value")
        lines += [f"  {stage:<30}{error:>12.1e}" for stage, error in report.error.items()]
    return "\n".join(lines)
