"""`bevformer-ros benchmark-sync`: what receiving and synchronising six cameras costs, the network left out."""

from __future__ import annotations

import argparse

from bevformer_ros.commands.options import add_rig, add_size, rig_of
from bevformer_ros.ros.live.sync_benchmark import JPEG_BYTES, SyncLoad, measure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sets", type=int, default=SyncLoad.sets, help="sets to publish (default %(default)s)")
    parser.add_argument("--rate", type=float, default=SyncLoad.rate, help="sets a second (default %(default)s)")
    add_size(parser, SyncLoad.size)
    parser.add_argument("--compressed", action="store_true", help=f"messages of {JPEG_BYTES} bytes, not decoded")
    parser.add_argument("--reliable", action="store_true", help="reliable QoS instead of best effort")
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
