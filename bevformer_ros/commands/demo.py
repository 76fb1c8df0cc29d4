"""`bevformer-ros demo`: a simulated drive goes over DDS through the detector and ends in a table and a picture."""

from __future__ import annotations

import argparse
import os
import sys
import time

from bevformer_ros.commands.detector_options import add_model_with_weights, add_setting
from bevformer_ros.commands.field_options import add_field
from bevformer_ros.commands.options import add_output, add_rig
from bevformer_ros.evaluation.matching import HIT_DISTANCE
from bevformer_ros.ros.bag.pictures import UNTRAINED
from bevformer_ros.ros.bag.run_summary import REQUIRED_SHARE
from bevformer_ros.ros.live.demo import demonstrate, prepare_environment
from bevformer_ros.ros.node.settings import Settings
from bevformer_ros.simulation.drive import Drive
from bevformer_ros.simulation.seeds import EVALUATION_SEEDS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output(parser, "FOLDER", "folder for all results", "out")
    add_field(parser, Drive, "seconds")
    parser.add_argument("--rate", type=float, default=2.0, help="image sets a second (default %(default)s)")
    parser.add_argument(
        "--seed",
        type=int,
        default=EVALUATION_SEEDS.start,
        help="which world (default %(default)s, of which the weights know nothing)",
    )
    add_rig(parser)
    add_model_with_weights(parser)
    add_setting(parser, "backend")


def run(arguments: argparse.Namespace) -> int:
    prepare_environment()
    drive = Drive(arguments.seed, arguments.seconds, arguments.rate)
    out = arguments.output
    try:
        settings = Settings(arguments.rig, arguments.model, arguments.weights, arguments.backend)
        summary, found = demonstrate(out, drive, settings)
    except RuntimeError as error:
        print(f"bevformer-ros demo: {error}", file=sys.stderr)
        return 1
    print(f"\n{summary.table()}\n")
    print(f"{found}, to {HIT_DISTANCE:g} m" if summary.trained else f"{UNTRAINED} in the picture")
    print(f"pictures: {out / 'demo.png'}, {out / 'demo.webp'}   bags: {out / 'drive'}, {out / 'result'}")
    if "DEMO_STARTED" in os.environ:  # by make
        print(f"{time.time() - float(os.environ['DEMO_STARTED']):.0f} s since `make demo` began, set-up included")
    if not summary.succeeded:
        share = f"{summary.processed} of {summary.sets_in} sets were processed, expected {REQUIRED_SHARE:.0%}"
        print(
            f"FAILED: {share}; see {out / 'detector.log'}, and try again when the machine is less busy", file=sys.stderr
        )
    return 0 if summary.succeeded else 1
