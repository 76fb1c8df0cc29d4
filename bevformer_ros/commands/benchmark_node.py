"""`bevformer-ros benchmark-node`: the whole node, fed by six cameras over DDS: rate, drops, latency, CPU, by stage."""

from __future__ import annotations

import argparse

from bevformer_ros.commands.detector_options import add_device, add_model_with_weights, add_precision, add_setting
from bevformer_ros.commands.field_options import add_field
from bevformer_ros.commands.options import add_size
from bevformer_ros.ros.detector_loading import device_of, precision_of
from bevformer_ros.ros.live.node_benchmark import NodeLoad, measure
from bevformer_ros.ros.node.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_with_weights(parser, "tiny")
    add_setting(parser, "backend")
    add_device(parser)
    add_precision(parser)
    add_field(parser, NodeLoad, "sets")
    add_field(parser, NodeLoad, "rate")
    add_size(parser, NodeLoad.size)
    add_field(parser, NodeLoad, "raw")


def run(arguments: argparse.Namespace) -> int:
    settings = Settings(
        model=arguments.model,
        weights=arguments.weights,
        backend=arguments.backend,
        device=arguments.device,
        precision=arguments.precision,
    )
    load = NodeLoad(
        settings.model,
        settings.weights,
        settings.backend,
        device_of(settings),
        precision_of(settings),
        arguments.sets,
        arguments.rate,
        arguments.size,
        arguments.raw,
    )
    print(measure(load).table(load))
    return 0
