"""`bevformer-ros benchmark-scaling`: time per set against the number of cameras, the image size and the history."""

from __future__ import annotations

import argparse

import torch

from bevformer_ros.benchmarks.scaling import Scaling, draw, measure_curves, table
from bevformer_ros.commands.detector_options import (
    add_device,
    add_model,
    add_precision,
    device_of,
    model_of,
    precision_of,
)
from bevformer_ros.commands.options import add_output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    default = Scaling()
    add_model(parser, "tiny_two_stage")
    add_device(parser)
    add_precision(parser)
    parser.add_argument("--repeats", type=int, default=5, help="timed frames for each point (default %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default %(default)s)")
    parser.add_argument("--cameras", type=int, nargs="+", default=default.cameras, help="(default 1 to 8)")
    parser.add_argument(
        "--heights", type=int, nargs="+", default=(), help="of the input (default: half to 2.5 times the model's)"
    )
    parser.add_argument("--past-frames", type=int, nargs="+", default=default.past_frames, help="(default 0 1 2 4 8)")
    add_output(parser, "PLOT", "picture to write", "scaling.svg")


def run(arguments: argparse.Namespace) -> int:
    device, precision = device_of(arguments), precision_of(arguments)
    torch.set_num_threads(arguments.threads)
    config = model_of(arguments)
    scaling = Scaling(tuple(arguments.cameras), tuple(arguments.heights), tuple(arguments.past_frames))
    curves = measure_curves(config, scaling, device, precision, arguments.repeats)
    print(table(curves))
    draw(curves, f"{config.name}, {precision}, {device}", arguments.output)
    print(f"plot: {arguments.output}")
    return 0
