"""`bevformer-ros benchmark-history`: what history costs per frame, against the number of past frames."""

from __future__ import annotations

import argparse
from typing import get_args

import torch

from bevformer_ros.benchmarks.history_times import measure
from bevformer_ros.benchmarks.stage_times import Mode
from bevformer_ros.commands.detector_options import (
    add_device,
    add_model,
    add_precision,
    device_of,
    model_of,
    precision_of,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser, "bevformerv2_r50_t8")
    parser.add_argument("--past-frames", type=int, nargs="+", default=[1, 2, 4, 8], help="(default 1 2 4 8)")
    parser.add_argument(
        "--mode", nargs="+", choices=get_args(Mode), default=get_args(Mode), help="of the history (default both)"
    )
    add_device(parser)
    add_precision(parser)
    parser.add_argument(
        "--repeats", type=int, default=3, help="timed frames after one to warm up (default %(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    device, precision = device_of(arguments), precision_of(arguments)
    config = model_of(arguments)
    print(f"{config.name}, {precision} on {device}, {torch.get_num_threads()} CPU threads")
    print("| mode | past frames | store ms | history ms | fusion ms | frame ms | frames in ring | ring MB |")
    print("|---|---|---|---|---|---|---|---|")
    for times in measure(config, arguments.past_frames, arguments.mode, device, precision, arguments.repeats):
        milliseconds = [f"{value:.1f}" for value in (*times.stages.values(), times.frame_ms)]
        cells = (times.mode, str(times.past_frames), *milliseconds, str(times.frames), f"{times.bytes / 1e6:.1f}")
        print(f"| {' | '.join(cells)} |", flush=True)
    return 0
