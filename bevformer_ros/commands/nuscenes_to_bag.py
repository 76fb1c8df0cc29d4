"""`bevformer-ros nuscenes-to-bag`: scenes of a nuScenes data set as bags."""

from __future__ import annotations

import argparse

from bevformer_ros.commands.options import add_dataset, add_output, add_rig, add_storage, rig_of
from bevformer_ros.datasets.nuscenes_tables import open_dataset, scenes_of_split
from bevformer_ros.ros.bag.nuscenes_drive import nuscenes_to_bag
from bevformer_ros.ros.bag.storages import require_folder_of_bags

ALL = "all"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_dataset(parser)
    scenes = parser.add_mutually_exclusive_group(required=True)
    scenes.add_argument("--scene", nargs="+", metavar="NAME", help=f"such as scene-0103; {ALL} for all of the tables")
    scenes.add_argument("--split", metavar="NAME", help="such as mini_val, or one of a splits.json beside the tables")
    add_output(parser, "BAG", "bag to create; of a split, of all and of several scenes a folder of bags")
    add_storage(parser)
    add_rig(parser)


def run(arguments: argparse.Namespace) -> int:
    rig = rig_of(arguments)
    dataset = open_dataset(arguments.dataroot, arguments.version)
    scenes: list[str] = arguments.scene or scenes_of_split(dataset, arguments.split)
    if scenes == [ALL]:
        scenes = sorted(record["name"] for record in dataset.scene)
    if len(scenes) > 1:
        require_folder_of_bags(arguments.output)
    for scene in scenes:
        path = arguments.output if scenes == arguments.scene and len(scenes) == 1 else arguments.output / scene
        if len(scenes) > 1 and path.exists():
            print(f"{path} is there already")
            continue
        images = nuscenes_to_bag(dataset, scene, path, rig, arguments.storage)
        print(f"{images} images in {path}")
    return 0
