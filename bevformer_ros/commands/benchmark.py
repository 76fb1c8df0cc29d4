"""`bevformer-ros benchmark`: time per stage and end to end, memory, and share of the floor."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import get_args

import torch

from bevformer_ros.benchmarks.stage_times import Mode, changed, measure, table
from bevformer_ros.commands.detector_options import add_device, add_model, add_precision, model_of
from bevformer_ros.commands.options import add_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser, "bevformerv2_r50_t1_base")
    parser.add_argument("--weights", type=Path, help="an official .pth or our .safetensors; random without")
    add_device(parser)
    add_precision(parser)
    parser.add_argument("--cameras", type=int, help="1 to 8 (default: the model's)")
    parser.add_argument("--height", type=int, help="of the network's input, whose width follows (default: the model's)")
    parser.add_argument("--past-frames", type=int, help="of the history (default: the model's)")
    parser.add_argument("--mode", choices=get_args(Mode), help="of the history (default: the model's)")
    parser.add_argument("--naive", action="store_true", help="also time it with grid_sample and without CUDA graphs")
    parser.add_argument("--repeats", type=int, default=5, help="timed frames after some to warm up (default 5)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    config = changed(model_of(arguments), arguments.cameras, arguments.height, arguments.past_frames, arguments.mode)
    report = measure(
        config, arguments.weights, arguments.device, arguments.precision, arguments.repeats, arguments.naive
    )
    print(json.dumps(asdict(report), indent=2) if arguments.json else table(report))
    return 0
