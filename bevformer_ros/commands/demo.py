"""`bevformer-ros demo`: a simulated drive goes over DDS through the detector and ends in a table and a picture."""

from __future__ import annotations

import argparse
import sys

from bevformer_ros.commands.detector_options import add_model_with_weights
from bevformer_ros.commands.options import add_output
from bevformer_ros.ros.live.demo import HIT_DISTANCE, UNTRAINED, demonstrate, prepare_environment
from bevformer_ros.simulation.drive import Drive
from bevformer_ros.simulation.seeds import EVALUATION_SEEDS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output(parser, "FOLDER", "folder for all results", "out")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the drive (default %(default)s)")
    parser.add_argument("--rate", type=float, default=2.0, help="image sets a second (default %(default)s)")
    parser.add_argument(
        "--seed",
        type=int,
        default=EVALUATION_SEEDS.start,
        help="which world (default %(default)s, of which the weights know nothing)",
    )
    add_model_with_weights(parser)


def run(arguments: argparse.Namespace) -> int:
    prepare_environment()
    drive = Drive(arguments.seed, arguments.seconds, arguments.rate)
    out = arguments.output
    try:
        summary, found = demonstrate(out, drive, arguments.model, arguments.weights)
    except RuntimeError as error:
        print(f"bevformer-ros demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"\n{summary.table()}\n")
    print(f"{found}, to {HIT_DISTANCE:g} m" if summary.trained else f"{UNTRAINED} in the picture")
    print(f"picture: {out / 'demo.png'}   bags: {out / 'drive'}, {out / 'result'}")
    if not summary.succeeded:
        print(f"FAILED: too few sets came through, see {out / 'detector.log'}", file=sys.stderr)
    return 0 if summary.succeeded else 1
