"""`bevformer-ros benchmark-sync`: what receiving and synchronising six cameras costs, the network left out."""

from __future__ import annotations

import argparse

from bevformer_ros.commands.field_options import add_field
from bevformer_ros.commands.options import add_rig, add_size, rig_of
from bevformer_ros.ros.live.sync_benchmark import SyncLoad, measure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_field(parser, SyncLoad, "sets")
    add_field(parser, SyncLoad, "rate")
    add_size(parser, SyncLoad.size)
    add_field(parser, SyncLoad, "compressed")
    add_field(parser, SyncLoad, "reliable")
    add_rig(parser, "topics")


def run(arguments: argparse.Namespace) -> int:
    load = SyncLoad(
        rig_of(arguments),
        arguments.sets,
        arguments.rate,
        arguments.size,
        arguments.compressed,
        arguments.reliable,
    )
    print(measure(load).table(load))
    return 0
