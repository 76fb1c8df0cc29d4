"""`bevformer-ros nuscenes-to-bag`: scenes of a nuScenes data set as bags."""

from __future__ import annotations

import argparse

from bevformer_ros.commands.options import add_dataset, add_output, add_rig, add_storage, rig_of
from bevformer_ros.datasets.nuscenes_tables import open_dataset
from bevformer_ros.ros.bag.nuscenes_drive import nuscenes_to_bag


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_dataset(parser)
    parser.add_argument("--scene", nargs="+", required=True, metavar="NAME", help="such as scene-0103")
    add_output(parser, "BAG", "bag to create; of several scenes a folder of bags")
    add_storage(parser)
    add_rig(parser)


def run(arguments: argparse.Namespace) -> int:
    rig = rig_of(arguments)
    dataset = open_dataset(arguments.dataroot, arguments.version)
    for scene in arguments.scene:
        path = arguments.output if len(arguments.scene) == 1 else arguments.output / scene
        path.parent.mkdir(parents=True, exist_ok=True)
        images = nuscenes_to_bag(dataset, scene, path, rig, arguments.storage)
        print(f"{images} images in {path}")
    return 0
