"""`bevformer-ros benchmark-node`: the whole node, fed by six cameras over DDS: rate, drops, latency, CPU, by stage."""

from __future__ import annotations

import argparse

from bevformer_ros.commands.detector_options import add_model_with_weights, add_precision, add_setting
from bevformer_ros.commands.options import add_size
from bevformer_ros.ros.live.node_benchmark import NodeLoad, measure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_with_weights(parser, "tiny")
    add_setting(parser, "device")
    add_precision(parser)
    parser.add_argument("--sets", type=int, default=NodeLoad.sets, help="sets to publish (default %(default)s)")
    parser.add_argument("--rate", type=float, default=NodeLoad.rate, help="sets a second (default %(default)s)")
    add_size(parser, NodeLoad.size)
    parser.add_argument("--raw", action="store_true", help="sensor_msgs/Image instead of JPEGs")


def run(arguments: argparse.Namespace) -> int:
    load = NodeLoad(
        arguments.model,
        arguments.weights,
        arguments.device,
        arguments.precision,
        arguments.sets,
        arguments.rate,
        arguments.size,
        arguments.raw,
    )
    print(measure(load).table(load))
    return 0
