"""`bevformer-ros submission`: results on nuScenes scenes as a file for the benchmark's server, or for its devkit."""

from __future__ import annotations

import argparse
from pathlib import Path

from bevformer_ros.commands.options import add_dataset, add_output, add_rig, rig_of
from bevformer_ros.datasets.nuscenes_tables import open_dataset
from bevformer_ros.evaluation.submission_file import write_submission
from bevformer_ros.ros.bag.replay_record import drive_of
from bevformer_ros.ros.bag.submission import results_of, stamps_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_dataset(parser)
    parser.add_argument("--results", type=Path, nargs="+", required=True, metavar="OUT", help="bags of `replay`")
    add_output(parser, "JSON", "file to write")
    parser.add_argument("--scene", nargs="+", default=[], metavar="NAME", help="of the split (default: all scenes)")
    add_rig(parser, "frames")


def run(arguments: argparse.Namespace) -> int:
    stamps = stamps_of(open_dataset(arguments.dataroot, arguments.version), arguments.scene)
    pairs = [(result, drive_of(result)) for result in arguments.results]
    found = results_of(pairs, rig_of(arguments), stamps)
    write_submission(arguments.output, {token: found.get(token) for token in stamps})
    print(f"{len(found)} of {len(stamps)} samples have results in {arguments.output}; the others stand there empty")
    return 0 if found else 1
