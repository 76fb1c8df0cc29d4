"""`bevformer-ros simulate`: a drive through the simulated world as a bag, with exact ground truth."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from bevformer_ros.commands.field_options import add_field
from bevformer_ros.commands.options import add_output, add_rig, add_size, add_storage, rig_of
from bevformer_ros.ros.bag.recorded_cameras import recorded_cameras
from bevformer_ros.ros.bag.simulated_drive import simulate
from bevformer_ros.simulation.drive import Drive
from bevformer_ros.simulation.sensor import SensorConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output(parser, "BAG", "bag directory to create")
    add_field(parser, Drive, "seed")
    add_field(parser, Drive, "seconds")
    add_field(parser, Drive, "rate")
    add_size(parser, Drive.size)
    add_storage(parser)
    add_rig(parser, "topics, frames, raw or compressed images, and cameras of its own")
    parser.add_argument(
        "--rig-from",
        type=Path,
        metavar="BAG",
        help="take sizes, lenses and mountings of the rig's cameras from CameraInfo and tf of a recorded bag",
    )
    effects = parser.add_argument_group("sensor effects", SensorConfig.__doc__)
    for field in fields(SensorConfig):
        add_field(effects, SensorConfig, field.name)


def run(arguments: argparse.Namespace) -> int:
    rig = rig_of(arguments)
    sensor = SensorConfig(**{field.name: getattr(arguments, field.name) for field in fields(SensorConfig)})
    drive = Drive(arguments.seed, arguments.seconds, arguments.rate, arguments.size, sensor)
    cameras = None if arguments.rig_from is None else recorded_cameras(arguments.rig_from, rig)
    simulate(arguments.output, rig, drive, arguments.storage, cameras)
    print(f"{len(drive.reference_stamps)} sets of {len(rig.cameras)} images in {arguments.output}")
    return 0
