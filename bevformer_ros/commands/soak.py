"""`bevformer-ros soak`: the whole node for long, fed by six cameras over DDS; exit status 1 if it grows."""

from __future__ import annotations

import argparse

from bevformer_ros.commands.detector_options import add_model_with_weights, add_setting
from bevformer_ros.commands.options import add_size
from bevformer_ros.ros.live.node_benchmark import NodeLoad
from bevformer_ros.ros.live.soak import soak

_DEFAULT_MINUTES = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_with_weights(parser, "tiny")
    add_setting(parser, "device")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=_DEFAULT_MINUTES, help="(default %(default)g)")
    length.add_argument("--sets", type=int, help="sets to publish, instead of --minutes")
    parser.add_argument("--rate", type=float, default=NodeLoad.rate, help="sets a second (default %(default)s)")
    add_size(parser, NodeLoad.size)
    parser.add_argument("--raw", action="store_true", help="sensor_msgs/Image instead of JPEGs")


def run(arguments: argparse.Namespace) -> int:
    load = NodeLoad(
        arguments.model,
        arguments.weights,
        device=arguments.device,
        sets=arguments.sets or round(60 * arguments.minutes * arguments.rate),
        rate=arguments.rate,
        size=arguments.size,
        raw=arguments.raw,
    )
    result = soak(load)
    print(result.table())
    return 1 if result.faults() else 0
