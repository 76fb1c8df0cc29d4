"""`bevformer-ros keyframe-to-bag`: one recorded keyframe, a folder with a frame.json, as a bag."""

from __future__ import annotations

import argparse
from pathlib import Path

from bevformer_ros.commands.options import add_output, add_rig, add_storage, rig_of
from bevformer_ros.ros.bag.keyframe_drive import keyframe_to_bag


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder with a frame.json and its images")
    add_output(parser, "BAG", "bag directory to create")
    add_storage(parser)
    add_rig(parser)


def run(arguments: argparse.Namespace) -> int:
    rig = rig_of(arguments)
    boxes = keyframe_to_bag(arguments.folder, arguments.output, rig, arguments.storage)
    print(f"one set of {len(rig.cameras)} images and {boxes} true boxes in {arguments.output}")
    return 0
