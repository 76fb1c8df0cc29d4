"""`bevformer-ros benchmark-world`: how many images a second the simulated world renders."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from bevformer_ros.benchmarks.world_rendering import measure
from bevformer_ros.commands.options import add_json, add_size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_size(parser, (480, 270))
    parser.add_argument("--workers", type=int, nargs="+", default=[1], help="processes, to compare (default 1)")
    parser.add_argument("--frames", type=int, default=20, help="sets of six for each process (default %(default)s)")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    reports = [measure(arguments.size, workers, arguments.frames) for workers in arguments.workers]
    if arguments.json:
        print(json.dumps([asdict(report) for report in reports], indent=2))
        return 0
    print("| size | workers | images | images/s | making a world s |")
    print("|---|---|---|---|---|")
    for report in reports:
        row = (f"{report.width}x{report.height}", report.workers, report.images)
        print("|", " | ".join([*map(str, row), f"{report.images_per_second:.1f}", f"{report.world_s:.2f}"]), "|")
    return 0
