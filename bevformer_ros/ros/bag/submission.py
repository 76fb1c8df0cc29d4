"""`bevformer-ros submission`: results on nuScenes scenes as a file for the benchmark's server, or for its devkit."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from nuscenes import NuScenes

from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.datasets.nuscenes_tables import open_dataset, samples_of_scene, stamp_ns
from bevformer_ros.evaluation.submission_file import SampleResult, write_submission
from bevformer_ros.resources import config_file
from bevformer_ros.ros.bag.files import BagReader
from bevformer_ros.ros.bag.nuscenes_drive import add_dataset_arguments
from bevformer_ros.ros.bag.results import EgoFrame, drive_of, nearest_stamp, read_boxes
from bevformer_ros.ros.bag.scene import OUTPUT, transforms_of
from bevformer_ros.ros.bag.simulated_drive import DEFAULT_RIG


def results_of(pairs: Iterable[tuple[Path, Path]], rig: RigConfig, stamps: dict[str, int]) -> dict[str, SampleResult]:
    """By sample token, from result bags and the drives' bags that nuscenes-to-bag made. stamps: of the samples."""
    found = {}
    for result, drive in pairs:
        with BagReader(result) as results, BagReader(drive) as driven:
            boxes, ego = read_boxes(results, OUTPUT), EgoFrame(transforms_of(driven), rig)
        known = np.array(sorted(boxes), np.int64)
        for token, stamp in stamps.items():
            nearest = nearest_stamp(known, stamp)
            if nearest is not None:
                found[token] = SampleResult(ego.boxes(boxes[nearest], nearest), ego.pose(nearest))
    return found


def stamps_of(dataset: NuScenes, scenes: Sequence[str]) -> dict[str, int]:
    """Of all samples of some scenes, or of the data set where none are named."""
    samples = [sample for scene in scenes for sample in samples_of_scene(dataset, scene)] if scenes else dataset.sample
    return {sample["token"]: stamp_ns(sample) for sample in samples}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_dataset_arguments(parser)
    parser.add_argument("--results", type=Path, nargs="+", required=True, metavar="OUT", help="bags of `replay`")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="JSON", help="file to write")
    parser.add_argument("--scene", nargs="+", default=[], metavar="NAME", help="of the split (default: all scenes)")
    parser.add_argument(
        "--rig", default=DEFAULT_RIG, help="frames: name in config/rigs or a YAML (default %(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    rig = load_yaml(RigConfig, config_file("rigs", arguments.rig))
    stamps = stamps_of(open_dataset(arguments.dataroot, arguments.version), arguments.scene)
    found = results_of([(result, drive_of(result)) for result in arguments.results], rig, stamps)
    write_submission(arguments.output, {token: found.get(token) for token in stamps})
    print(f"{len(found)} of {len(stamps)} samples have results in {arguments.output}; the others stand there empty")
    return 0 if found else 1
