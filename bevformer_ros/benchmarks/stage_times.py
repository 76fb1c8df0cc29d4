"""Time and arithmetic per stage, time end to end from JPEG files to boxes, memory.

The detector runs as the node runs it, on frames with a full history, files decoded in threads before. Stages are timed
without CUDA graphs, which cannot be timed inside; end to end with them. What messages cost, `benchmark-node` tells.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from bevformer_ros.benchmarks import frames as benchmark_frames
from bevformer_ros.benchmarks.flops import StageWork, count_work
from bevformer_ros.inference.choices import Precision
from bevformer_ros.inference.memory import keep_freed_memory
from bevformer_ros.inference.pipeline import Detector
from bevformer_ros.model.attention.deformable_attention import DeformableAttention
from bevformer_ros.model.attention.torch_sampling import grid_sample_attention
from bevformer_ros.model.checkpoint import load_weights, read_checkpoint
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.model.network import build_network

Mode = Literal["warp", "reencode"]


@dataclass(frozen=True)
class Times:
    """Milliseconds of the repeats, by the percentiles of MLPerf's single stream; median is p50."""

    mean: float
    median: float
    p90: float
    p99: float
    p99_9: float

    @classmethod
    def of(cls, milliseconds: list[float]) -> Times:
        percentiles = np.percentile(milliseconds, (50, 90, 99, 99.9))
        return cls(float(np.mean(milliseconds)), *(float(value) for value in percentiles))


@dataclass(frozen=True)
class Stage:
    """gflop: counted work, None where none is counted."""

    times: Times
    gflop: float | None = None


@dataclass(frozen=True)
class Report:
    """end_to_end: from files to boxes on the host. naive: the same with grid_sample and no CUDA graph, if asked for.

    peak_memory_mb: of the process on a CPU; on a GPU what torch takes from the device, with the graphs' memory, but
    without what runs naively, in stages or for comparison. errors: largest difference from the same weights in float32,
    relative to the largest value; empty in float32.
    """

    model: str
    device: str
    precision: str
    threads: int
    repeats: int
    cameras: int
    input_size: tuple[int, int]
    past_frames: int
    parameters: int
    stages: dict[str, Stage]
    end_to_end: Times
    naive: Times | None
    peak_memory_mb: float
    errors: dict[str, float]


def changed(
    config: ModelConfig,
    cameras: int | None = None,
    height: int | None = None,
    past_frames: int | None = None,
    mode: Mode | None = None,
) -> ModelConfig:
    """The model with other numbers, where they are given."""
    if cameras is not None:
        if not 1 <= cameras <= benchmark_frames.MOST_CAMERAS:
            raise ValueError(f"--cameras must lie in 1..{benchmark_frames.MOST_CAMERAS}, got {cameras}")
        spare = tuple(f"CAM_{number}" for number in range(len(config.cameras) + 1, cameras + 1))
        config = replace(config, cameras=(*config.cameras, *spare)[:cameras])
    if height is not None:
        config = replace(config, image=replace(config.image, height=height))
    if past_frames is not None:
        if past_frames < 0:
            raise ValueError(f"--past-frames must be 0 or more, got {past_frames}")
        config = replace(config, temporal=replace(config.temporal, frames=tuple(range(-past_frames, 1))))
    if mode is not None:
        config = replace(config, temporal=replace(config.temporal, mode=mode))
    return config


def measure(
    config: ModelConfig,
    weights: Path | None = None,
    device: str = "cpu",
    precision: Precision = "float32",
    repeats: int = 5,
    naive: bool = False,
) -> Report:
    """Raises ValueError for no repeats."""
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}, expected at least 1")
    keep_freed_memory()
    on_gpu = device.startswith("cuda")
    errors = _errors(config, weights, device, precision) if precision != "float32" else {}
    stages, end_to_end = timed(_detector(config, weights, device, precision, cuda_graphs=False), repeats)
    if on_gpu:  # on a CPU both are the same
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        _, end_to_end = timed(_detector(config, weights, device, precision, cuda_graphs=True), repeats)
    memory_mb = _peak_memory_mb(device)
    projections = torch.from_numpy(benchmark_frames.projections(config))[None].float()
    return Report(
        model=config.name,
        device=torch.cuda.get_device_name(device) if on_gpu else device,
        precision=precision,
        threads=torch.get_num_threads(),
        repeats=repeats,
        cameras=len(config.cameras),
        input_size=config.image.padded_size,
        past_frames=len(config.temporal.frames) - 1,
        parameters=sum(parameter.numel() for parameter in build_network(config).parameters()),
        stages=_with_work(stages, count_work(config, projections)),
        end_to_end=Times.of(end_to_end),
        naive=Times.of(timed(_naive(config, weights, device, precision), repeats)[1]) if naive else None,
        peak_memory_mb=memory_mb,
        errors=errors,
    )


def _detector(
    config: ModelConfig, weights: Path | None, device: str, precision: Precision, cuda_graphs: bool
) -> Detector:
    torch.manual_seed(0)
    network = build_network(config)
    if weights is not None:
        load_weights(network, read_checkpoint(weights).weights)
    return Detector(network, True, device, precision, cuda_graphs=cuda_graphs)  # trained or not: no warning here


def _naive(config: ModelConfig, weights: Path | None, device: str, precision: Precision) -> Detector:
    detector = _detector(config, weights, device, precision, cuda_graphs=False)
    for module in detector.network.modules():
        if isinstance(module, DeformableAttention):
            module.sample = grid_sample_attention
    return detector


def timed(detector: Detector, repeats: int) -> tuple[dict[str, list[float]], list[float]]:
    """Milliseconds by stage and end to end, of frames after the history has filled."""
    config = detector.config
    detector.warm_up()
    stages: dict[str, list[float]] = {}
    end_to_end: list[float] = []
    with ThreadPoolExecutor(os.cpu_count()) as decoders:
        for step, frame in enumerate(islice(benchmark_frames.frames(config), len(config.temporal.frames) + repeats)):
            files = benchmark_frames.jpegs(frame)
            started = time.perf_counter()
            images = list(decoders.map(lambda file: cv2.imdecode(file, cv2.IMREAD_COLOR), files))
            decoded = time.perf_counter()
            pairs = zip(frame.cameras, images, strict=True)
            cameras = (camera and replace(camera, image=np.asarray(image, np.uint8)) for camera, image in pairs)
            detector(replace(frame, cameras=tuple(cameras)))
            ended = time.perf_counter()
            if step < len(config.temporal.frames):
                continue
            end_to_end.append(1000 * (ended - started))
            for stage, milliseconds in {"decode": 1000 * (decoded - started), **detector.latencies_ms}.items():
                stages.setdefault(stage, []).append(milliseconds)
    return stages, end_to_end


def _with_work(stages: dict[str, list[float]], work: dict[str, StageWork]) -> dict[str, Stage]:
    return {
        name: Stage(Times.of(milliseconds), work[name].flops / 1e9 if name in work else None)
        for name, milliseconds in stages.items()
    }


@torch.inference_mode()
def _errors(config: ModelConfig, weights: Path | None, device: str, precision: Precision) -> dict[str, float]:
    """One frame whose history is itself, in both precisions; the decoder without proposals, which may change places."""
    reference, reduced = (
        dict(_outputs(_detector(config, weights, device, kind, cuda_graphs=False))) for kind in ("float32", precision)
    )
    return {name: _relative_error(reduced[name], expected) for name, expected in reference.items()}


def _outputs(detector: Detector) -> Iterator[tuple[str, Tensor]]:
    network = detector.network
    encoded = network.encode(detector.prepare(next(benchmark_frames.frames(detector.config))).network_inputs())
    output = network.detect(network.without_history(encoded.bev), None)
    assert encoded.features is not None
    yield "image features", encoded.features
    yield "BEV map", encoded.bev
    yield "class logits", output.class_logits
    yield "box codes", output.box_codes


def _relative_error(actual: Tensor, expected: Tensor) -> float:
    """Zero where both are zero throughout, as logits of a decoder that begins as adding nothing."""
    largest = expected.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    return float((actual.float() - expected).abs().max() / largest)


def _peak_memory_mb(device: str) -> float:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_reserved(device) / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def table(report: Report) -> str:
    width, height = report.input_size
    millions = f"{report.parameters / 1e6:.1f} M parameters"
    lines = [
        f"{report.model}, {millions}, {report.precision} on {report.device}, {report.threads} CPU threads",
        f"{report.cameras} cameras of {width} x {height}, {report.past_frames} past frames, {report.repeats} repeats",
        f"  {'ms':<20}{'mean':>10}{'p50':>10}{'p90':>10}{'p99':>10}{'p99.9':>10}{'GFLOP':>10}",
    ]
    for name, stage in report.stages.items():
        gflop = "" if stage.gflop is None else f"{stage.gflop:.1f}"
        lines.append(_row(name, stage.times) + f"{gflop:>10}")
    lines.append(_row("end to end", report.end_to_end))
    if report.naive is not None:
        ratio = report.naive.median / report.end_to_end.median
        lines.append(_row("naive", report.naive) + f"  {ratio:.1f} times as long")
    lines.append(f"  {'peak memory':<20}{report.peak_memory_mb:>10.0f} MB")
    if report.errors:
        lines.append("largest error against float32, relative to the largest value")
        lines += [f"  {name:<20}{error:>10.1e}" for name, error in report.errors.items()]
    return "\n".join(lines)


def _row(name: str, times: Times) -> str:
    return f"  {name:<20}" + "".join(f"{value:>10.1f}" for value in astuple(times))
