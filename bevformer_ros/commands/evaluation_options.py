"""What `evaluate` and `report` make of their options; apart from the others, because it needs nuscenes-devkit."""

from __future__ import annotations

import argparse

from bevformer_ros.commands.options import classes_of, detections_of, rig_of, truth_of
from bevformer_ros.ros.bag.evaluation import Evaluation, evaluate, pairs_of


def evaluations_of(arguments: argparse.Namespace) -> list[Evaluation]:
    """Of the results, and of those to compare with."""
    return [
        evaluate(
            pairs_of(results, arguments.ground_truth),
            rig_of(arguments),
            truth_of(arguments),
            detections_of(arguments),
            classes_of(arguments),
        )
        for results in (arguments.results, arguments.compare)
        if results
    ]
