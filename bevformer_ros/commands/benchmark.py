"""`bevformer-ros benchmark`: time per stage and end to end, and memory; or, without a GPU, what one would need."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import torch

from bevformer_ros.benchmarks import roofline, stage_times
from bevformer_ros.benchmarks.data_sheets import DATA_SHEETS
from bevformer_ros.benchmarks.stage_times import Mode, changed, measure
from bevformer_ros.commands.detector_options import (
    add_device,
    add_model,
    add_precision,
    device_of,
    model_of,
    precision_of,
)


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
    parser.add_argument(
        "--roofline",
        choices=DATA_SHEETS,
        help="measure nothing; count what every operator computes, reads and writes, and what this GPU needs for it",
    )
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="print JSON instead of a table, or write it to a file"
    )


def run(arguments: argparse.Namespace) -> int:
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    config = changed(model_of(arguments), arguments.cameras, arguments.height, arguments.past_frames, arguments.mode)
    if arguments.roofline is not None:
        precision = "bfloat16" if arguments.precision == "auto" else arguments.precision  # as on any such GPU
        counted = roofline.roofline(config, precision, DATA_SHEETS[arguments.roofline])
        _show(asdict(counted), roofline.table(counted), arguments.json)
        return 0
    report = measure(
        config,
        arguments.weights,
        device_of(arguments),
        precision_of(arguments),
        arguments.repeats,
        arguments.naive,
    )
    _show(asdict(report), stage_times.table(report), arguments.json)
    return 0


def _show(numbers: dict[str, Any], table: str, json_file: str | None) -> None:
    """json_file: None for the table, "-" for JSON on standard output."""
    text = json.dumps(numbers, indent=2)
    if json_file in (None, "-"):
        print(table if json_file is None else text)
    else:
        Path(json_file).write_text(text + "\n", encoding="utf-8")
        print(table)
