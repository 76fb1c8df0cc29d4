"""`bevformer-ros check-rig`: what a rig says about a bag's images, drawn over them, and what of it is implausible."""

from __future__ import annotations

import argparse
from pathlib import Path

from bevformer_ros.commands.options import add_output
from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.drawing import draw_surround, write_picture
from bevformer_ros.model.config import BevGridConfig
from bevformer_ros.resources import config_file
from bevformer_ros.ros.bag.rig_inspection import inspect_rig
from bevformer_ros.ros.topics import TRUTH, BoxTopics
from bevformer_ros.types import SECOND_NS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("rig", metavar="RIG", help="a name in config/rigs or a YAML file")
    parser.add_argument("bag", type=Path, metavar="BAG", help="bag with the rig's topics and tf")
    add_output(parser, "PNG", "picture to write")
    parser.add_argument("--width", type=int, default=800, help="of one camera's view in pixels (default %(default)s)")
    parser.add_argument("--at", type=float, metavar="S", help="seconds after the bag's start (default: the middle)")
    parser.add_argument("--boxes", default=TRUTH.boxes, metavar="TOPIC", help="drawn if there (default %(default)s)")
    parser.add_argument("--kinematics", default=TRUTH.kinematics, metavar="TOPIC", help="(default %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    rig = load_yaml(RigConfig, config_file("rigs", arguments.rig))
    topics = BoxTopics(arguments.boxes, arguments.kinematics)
    found = inspect_rig(rig, arguments.bag, topics, BevGridConfig().range, arguments.at)
    title = f"{arguments.bag.name}   {found.frame.stamp_ns / SECOND_NS:.3f} s   the grid should lie on the road"
    picture = draw_surround(
        found.frame, found.boxes, title, bev_from_base=found.bev_from_road, view_width=arguments.width
    )
    write_picture(arguments.output, picture)
    print(found.description)
    for problem in found.problems:
        print(f"CHECK: {problem}")
    print(f"{len(found.problems) or 'nothing'} implausible; see for yourself: {arguments.output}")
    return 0
