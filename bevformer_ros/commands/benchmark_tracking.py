"""`bevformer-ros benchmark-tracking`: what tracking costs for each set of boxes."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from bevformer_ros.benchmarks.tracking_times import measure
from bevformer_ros.commands.options import add_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--boxes", type=int, nargs="+", default=[50, 150, 300], help="in each set (default 50 150 300)")
    parser.add_argument("--sets", type=int, default=300, help="(default %(default)s)")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    reports = [measure(boxes, arguments.sets) for boxes in arguments.boxes]
    if arguments.json:
        print(json.dumps([asdict(report) for report in reports], indent=2))
        return 0
    print("| boxes | tracks | sets | median CPU ms | 95 % CPU ms |")
    print("|---|---|---|---|---|")
    for report in reports:
        times = (f"{report.median_ms:.2f}", f"{report.percentile_95_ms:.2f}")
        print("|", " | ".join([*map(str, (report.boxes, report.tracks, report.sets)), *times]), "|")
    return 0
