"""What history costs per frame, in time and memory, against the number of past frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
import torch

from bevformer_ros import geometry
from bevformer_ros.benchmarks.frames import frames
from bevformer_ros.benchmarks.stage_times import Mode, timed
from bevformer_ros.inference.bev_buffer import BevBuffer, EncodedFrame
from bevformer_ros.inference.choices import Precision
from bevformer_ros.inference.gpu_clock import clock_on
from bevformer_ros.inference.history import HistoryConfig
from bevformer_ros.inference.network_preparation import prepare_for_inference
from bevformer_ros.inference.pipeline import Detector
from bevformer_ros.model.config import ModelConfig, TemporalConfig
from bevformer_ros.model.network import BEVFormerV2, build_network
from bevformer_ros.types import SECOND_NS

_SPEED = 10.0  # m/s, straight ahead


@dataclass(frozen=True)
class HistoryTimes:
    """Milliseconds by stage; frame_ms: of a whole frame. frames, bytes: in the ring of past frames."""

    mode: Mode
    past_frames: int
    stages: dict[str, float]
    frame_ms: float
    frames: int
    bytes: int


def measure(
    config: ModelConfig,
    past_frames: Sequence[int],
    modes: Sequence[Mode],
    device: str,
    precision: Precision,
    repeats: int,
) -> Iterator[HistoryTimes]:
    """One for each mode and number of past frames, as they are done. Raises ValueError for no repeats, and for no
    past frames."""
    if min(past_frames) < 1 or repeats < 1:
        raise ValueError(f"past_frames and repeats must be at least 1, got {min(past_frames)} and {repeats}")
    torch.manual_seed(0)
    single = Detector(build_network(replace(config, temporal=TemporalConfig())), True, device, precision)
    rest = median(timed(single, repeats)[1])
    frame = _encoded(single)
    place, dtype = torch.device(device), getattr(torch, precision)
    for mode in modes:
        for count in past_frames:
            temporal = replace(config.temporal, frames=tuple(range(-count, 1)), mode=mode)
            network = prepare_for_inference(build_network(replace(config, temporal=temporal)), place, dtype)
            stages, buffer = _with_history(network, frame, place, repeats)
            yield HistoryTimes(mode, count, stages, rest + sum(stages.values()), buffer.capacity, buffer.bytes)


@torch.inference_mode()
def _encoded(detector: Detector) -> EncodedFrame:
    prepared = detector.prepare(next(frames(detector.config)))
    inputs = prepared.network_inputs()
    encoded = detector.network.encode(inputs)
    return EncodedFrame(0, np.eye(4), encoded.bev, encoded.features, prepared.image_from_bev, inputs.camera_valid)


@torch.inference_mode()
def _with_history(
    network: BEVFormerV2, frame: EncodedFrame, device: torch.device, repeats: int
) -> tuple[dict[str, float], BevBuffer]:
    """Milliseconds by stage while all slots are filled, and the buffer; the frame repeats all along a straight road."""
    config = network.config
    buffer = BevBuffer(config.temporal, HistoryConfig(), config.bev, network.encode_bev)
    slots = len(config.temporal.frames) - 1
    measured: list[dict[str, float]] = []
    for step in range(slots + 1 + repeats):
        seconds = step * config.temporal.interval_s
        world_from_bev = geometry.transform((0.0, _SPEED * seconds, 0.0), (0.0, 0.0, 0.0, 1.0))
        now = replace(frame, stamp_ns=round(seconds * SECOND_NS), world_from_bev=world_from_bev)
        clock = clock_on(device)
        buffer.store(now)
        clock.mark("store")
        if step < slots:
            continue
        bevs = buffer.align(now.bev, buffer.recall(now).past)
        clock.mark("history")
        network.fuse(bevs)
        clock.mark("fusion")
        measured.append(clock.latencies_ms())
    return {stage: median(times[stage] for times in measured[1:]) for stage in measured[0]}, buffer
