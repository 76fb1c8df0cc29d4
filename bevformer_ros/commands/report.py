"""`bevformer-ros report`: results against the truth as a folder to look at, two detectors side by side if wished."""

from __future__ import annotations

import argparse

from bevformer_ros.commands.evaluation_options import evaluations_of
from bevformer_ros.commands.field_options import add_field
from bevformer_ros.commands.options import add_output, add_results, rig_of, truth_of
from bevformer_ros.ros.bag.evaluation import pairs_of
from bevformer_ros.ros.bag.report import Pictures, report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_results(parser, "+")
    add_output(parser, "FOLDER", "folder to create")
    add_field(parser, Pictures, "most", "--frames")
    add_field(parser, Pictures, "score")
    add_field(parser, Pictures, "width")


def run(arguments: argparse.Namespace) -> int:
    runs = evaluations_of(arguments)
    drives = [drive for _, drive in pairs_of(arguments.results, arguments.ground_truth)]
    pictures = Pictures(arguments.most, arguments.score, arguments.width)
    report(arguments.output, runs, drives, rig_of(arguments), truth_of(arguments), pictures)
    for found in runs:
        print(found.text())
    print(f"\nopen {arguments.output / 'index.html'}")
    return 0
