"""`bevformer-ros simulate`: a drive through the simulated world as a bag, with exact ground truth."""

from __future__ import annotations

import argparse

from bevformer_ros.commands.options import add_output, add_rig, add_size, add_storage, rig_of
from bevformer_ros.ros.bag.simulated_drive import simulate
from bevformer_ros.simulation.drive import Drive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    default = Drive()
    add_output(parser, "BAG", "bag directory to create")
    parser.add_argument("--seed", type=int, default=default.seed, help="which world (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=default.seconds, help="length (default %(default)s)")
    parser.add_argument("--rate", type=float, default=default.rate, help="image sets a second (default %(default)s)")
    add_size(parser, default.size)
    add_storage(parser)
    add_rig(parser, "topics, frames, raw or compressed images")


def run(arguments: argparse.Namespace) -> int:
    rig = rig_of(arguments)
    drive = Drive(arguments.seed, arguments.seconds, arguments.rate, arguments.size)
    simulate(arguments.output, rig, drive, arguments.storage)
    print(f"{len(drive.reference_stamps)} sets of {len(rig.cameras)} images in {arguments.output}")
    return 0
