"""`bevformer-ros replay`: bags in, bags with the detector's results out, one for each; no ROS graph."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bevformer_ros.commands.detector_options import add_settings, settings_of
from bevformer_ros.commands.options import add_output, add_rig, add_storage, add_workers
from bevformer_ros.ros.bag.replay_tasks import run_tasks, tasks_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bags", type=Path, nargs="+", metavar="BAG", help="bag folder, .mcap or .db3 file")
    add_output(parser, "OUT", "bag to create; of several a folder of bags")
    add_workers(parser, 1, "each take a bag")
    parser.add_argument("--ray", action="store_true", help="each bag a task of the Ray cluster that RAY_ADDRESS names")
    parser.add_argument("--markers", action="store_true", help="write markers too, for RViz and Foxglove")
    add_storage(parser)
    add_rig(parser)
    add_settings(parser)


def run(arguments: argparse.Namespace) -> int:
    settings, storage = settings_of(arguments), arguments.storage
    tasks = tasks_of(arguments.bags, arguments.output, settings, storage, arguments.markers)
    failed = False
    for outcome in run_tasks(tasks, arguments.workers, arguments.ray):
        print(outcome, file=sys.stderr if outcome.error else sys.stdout)
        failed |= not outcome.processed
    return int(failed)
