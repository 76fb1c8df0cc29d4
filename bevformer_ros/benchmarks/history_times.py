"""`bevformer-ros benchmark-history`: what history costs per frame, in time and memory, against the number of slots."""

from __future__ import annotations

import argparse
from dataclasses import replace
from statistics import median
from typing import get_args

import numpy as np
import torch

from bevformer_ros import geometry
from bevformer_ros.benchmarks.frames import frames
from bevformer_ros.benchmarks.stage_times import Mode, timed
from bevformer_ros.config import load_yaml
from bevformer_ros.inference.bev_buffer import BevBuffer, EncodedFrame
from bevformer_ros.inference.history import HistoryConfig
from bevformer_ros.inference.network_preparation import prepare_for_inference
from bevformer_ros.inference.pipeline import Detector, Precision, StageClock
from bevformer_ros.model.config import ModelConfig, TemporalConfig
from bevformer_ros.model.network import BEVFormerV2, build_network
from bevformer_ros.resources import config_file
from bevformer_ros.types import SECOND_NS

_SPEED = 10.0  # m/s, straight ahead


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="bevformerv2_r50_t8", help="name in config/models, or a YAML file")
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 2, 4, 8], help="past frames (default 1 2 4 8)")
    parser.add_argument("--modes", nargs="+", choices=get_args(Mode), default=get_args(Mode), help="(default both)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default %(default)s)")
    parser.add_argument("--precision", choices=get_args(Precision), default="float32", help="(default %(default)s)")
    parser.add_argument(
        "--repeats", type=int, default=3, help="timed frames after one to warm up (default %(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    if min(arguments.slots) < 1 or arguments.repeats < 1:
        raise ValueError("--slots and --repeats must be at least 1")
    config = load_yaml(ModelConfig, config_file("models", arguments.model))
    device, dtype = torch.device(arguments.device), getattr(torch, arguments.precision)
    torch.manual_seed(0)
    single = Detector(
        build_network(replace(config, temporal=TemporalConfig())), True, arguments.device, arguments.precision
    )
    rest = median(timed(single, arguments.repeats)[1])
    frame = _encoded(single)
    print(f"{config.name}, {arguments.precision} on {arguments.device}, {torch.get_num_threads()} CPU threads")
    print(f"all that does not depend on history: {rest:.1f} ms")
    print("| mode | slots | store ms | history ms | fusion ms | frame ms | frames in ring | ring MB |")
    print("|---|---|---|---|---|---|---|---|")
    for mode in arguments.modes:
        for slots in arguments.slots:
            temporal = replace(config.temporal, frames=tuple(range(-slots, 1)), mode=mode)
            network = prepare_for_inference(build_network(replace(config, temporal=temporal)), device, dtype)
            times, buffer = _with_history(network, frame, device, arguments.repeats)
            milliseconds = [f"{value:.1f}" for value in (*times.values(), rest + sum(times.values()))]
            print(
                "|",
                " | ".join([mode, str(slots), *milliseconds, str(buffer.capacity), f"{buffer.bytes / 1e6:.1f}"]),
                "|",
                flush=True,
            )
    return 0


@torch.inference_mode()
def _encoded(detector: Detector) -> EncodedFrame:
    network, config = detector.network, detector.config
    entry = detector.prepare(next(frames(config))).inputs
    features = network.image_features(entry.images)[: config.encoder.image_levels]
    projections = torch.from_numpy(entry.image_from_bev)[None].to(entry.images.device, torch.float32)
    width, height = config.image.padded_size
    bev = network.encode_bev(features, projections, entry.camera_valid, (height, width))
    return EncodedFrame(0, np.eye(4), bev, features, entry.image_from_bev, entry.camera_valid)


@torch.inference_mode()
def _with_history(
    network: BEVFormerV2, frame: EncodedFrame, device: torch.device, repeats: int
) -> tuple[dict[str, float], BevBuffer]:
    """Milliseconds by stage while all slots are filled, and the buffer; the frame repeats all along a straight road."""
    config = network.config
    width, height = config.image.padded_size
    buffer = BevBuffer(
        config.temporal,
        HistoryConfig(),
        config.bev,
        lambda features, image_from_bev, valid: network.encode_bev(features, image_from_bev, valid, (height, width)),
    )
    slots = len(config.temporal.frames) - 1
    measured: list[dict[str, float]] = []
    for step in range(slots + 1 + repeats):
        seconds = step * config.temporal.interval_s
        world_from_bev = geometry.transform((0.0, _SPEED * seconds, 0.0), (0.0, 0.0, 0.0, 1.0))
        now = replace(frame, stamp_ns=round(seconds * SECOND_NS), world_from_bev=world_from_bev)
        clock = StageClock(device)
        buffer.store(now)
        clock.mark("store")
        if step < slots:
            continue
        recall = buffer.recall(now)
        clock.mark("history")
        network.fuse(recall.bevs)
        clock.mark("fusion")
        measured.append(clock.latencies_ms())
    return {stage: median(times[stage] for times in measured[1:]) for stage in measured[0]}, buffer
