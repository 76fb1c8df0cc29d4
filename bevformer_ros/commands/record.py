"""`bevformer-ros record`: stores topics as they arrive, untouched, in a bag, until it is interrupted."""

from __future__ import annotations

import argparse

from bevformer_ros.commands.options import add_output, add_storage
from bevformer_ros.ros.live.recorder import record


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("topics", nargs="+", metavar="TOPIC", help="topics to record, absolute names")
    add_output(parser, "BAG", "bag directory to create")
    add_storage(parser)
    parser.add_argument("--use-sim-time", action="store_true", help="stamp with /clock, as the player publishes it")


def run(arguments: argparse.Namespace) -> int:
    record(arguments.output, arguments.topics, arguments.storage, arguments.use_sim_time)
    return 0
