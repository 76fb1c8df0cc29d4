"""`bevformer-ros evaluate`: results against the truth by the nuScenes protocol, latency and drops beside.

With --world there are no results yet: the detector drives through simulated worlds.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from bevformer_ros.commands.detector_options import add_device, add_precision, add_setting
from bevformer_ros.commands.evaluation_options import evaluations_of
from bevformer_ros.commands.field_options import add_field
from bevformer_ros.commands.options import (
    add_results,
    add_size,
    add_workers,
    classes_of,
    detections_of,
    rig_of,
    truth_of,
)
from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.evaluation.error_fit import fit_error_model
from bevformer_ros.evaluation.simulated_world import KEYFRAME_RATE
from bevformer_ros.evaluation.tracking import TrackingScores
from bevformer_ros.resources import config_file
from bevformer_ros.ros.bag.evaluation import (
    Evaluation,
    WorldEvaluation,
    compared,
    evaluate_tracked_truth,
    evaluate_tracked_worlds,
    evaluate_tracks,
    evaluate_worlds,
    pairs_of,
)
from bevformer_ros.ros.node.settings import Settings
from bevformer_ros.ros.topics import OUTPUT_TRACKS
from bevformer_ros.simulation.drive import Drive
from bevformer_ros.simulation.seeds import EVALUATION_SEEDS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_results(parser, "*")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all of it there too")
    parser.add_argument(
        "--error-model",
        type=Path,
        metavar="YAML",
        help="write how far the boxes are off, by class and distance, for convert to put into the weights",
    )
    parser.add_argument("--tracking", action="store_true", help="score tracks: AMOTA, AMOTP, identity switches")
    world = parser.add_argument_group("in place of results: the detector itself, on the simulated world")
    world.add_argument(
        "--world",
        type=world_range,
        metavar="FIRST:STOP",
        help=f"seeds, without STOP; reserved for this are {EVALUATION_SEEDS.start}:{EVALUATION_SEEDS.stop}",
    )
    world.add_argument(
        "--model",
        help=f"name in config/models or a file (default: what .safetensors weights hold, or else {Settings.model})",
    )
    add_setting(world, "weights")
    add_setting(world, "backend")
    add_device(world)
    add_precision(world)
    world.add_argument("--proposals", action="store_true", help="score the perspective head's boxes, not the decoder's")
    world.add_argument(
        "--seen-by",
        metavar="RIG",
        help="count only what the cameras of this rig have in view: a name in config/rigs or a YAML file",
    )
    world.add_argument("--perfect", action="store_true", help="with --tracking: track the truth, not what is detected")
    add_setting(world, "tracking_config")
    add_field(world, Drive, "seconds")
    world.add_argument("--rate", type=float, default=KEYFRAME_RATE, help="image sets a second (default %(default)s)")
    add_size(world, Drive.size)
    add_workers(world, 0, "render ahead")


def world_range(text: str) -> range:
    """9000:9010 as range(9000, 9010)."""
    first, _, stop = text.partition(":")
    if not (first.isdigit() and stop.isdigit() and int(first) < int(stop)):
        raise argparse.ArgumentTypeError(f"{text!r} names no worlds, expected FIRST:STOP such as 9000:9010")
    return range(int(first), int(stop))


def run(arguments: argparse.Namespace) -> int:
    if bool(arguments.results) == bool(arguments.world):
        raise ValueError("expected either bags with results or --world, got " + ("both" if arguments.world else "none"))
    found = of_worlds(arguments) if arguments.world else of_results(arguments)
    print(found.text())
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found.as_json(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    if arguments.error_model is not None:
        _write_error_model(found, arguments.error_model)
    return 0


def _write_error_model(found: Evaluation | WorldEvaluation | TrackingScores, file: Path) -> None:
    if isinstance(found, TrackingScores):
        raise ValueError("--error-model and --tracking exclude each other: the error model is of detections")
    model = fit_error_model(found.samples)
    file.write_text(json.dumps(asdict(model), indent=2) + "\n", encoding="utf-8")
    print(f"{len(model.entries)} classes and distances in {file}")


def of_results(arguments: argparse.Namespace) -> Evaluation | TrackingScores:
    if arguments.tracking:
        if arguments.compare:
            raise ValueError("--compare and --tracking exclude each other: score the tracks of each run by themselves")
        return evaluate_tracks(
            pairs_of(arguments.results, arguments.ground_truth),
            rig_of(arguments),
            truth_of(arguments),
            detections_of(arguments, OUTPUT_TRACKS),
            classes_of(arguments),
        )
    first, *others = evaluations_of(arguments)
    for second in others:
        print(f"{compared(first, second)}\n")
    return first


def seen_by_of(arguments: argparse.Namespace) -> list[str] | None:
    if arguments.seen_by is None:
        return None
    return [camera.name for camera in load_yaml(RigConfig, config_file("rigs", arguments.seen_by)).cameras]


def of_worlds(arguments: argparse.Namespace) -> WorldEvaluation | TrackingScores:
    if arguments.perfect and not arguments.tracking:
        raise ValueError("--perfect tracks the truth: give --tracking too")
    if arguments.proposals and arguments.tracking:
        raise ValueError("--proposals and --tracking exclude each other: tracks are made of the decoder's boxes")
    own_model = arguments.weights if Path(arguments.weights).suffix == ".safetensors" else Settings.model
    settings = Settings(
        arguments.rig,
        arguments.model or own_model,
        arguments.weights,
        arguments.backend,
        arguments.device,
        arguments.precision,
        tracking_config=arguments.tracking_config,
    )
    drives = [Drive(seed, arguments.seconds, arguments.rate, arguments.size) for seed in arguments.world]
    if not arguments.tracking:
        return evaluate_worlds(settings, drives, arguments.proposals, arguments.workers, seen_by_of(arguments))
    if arguments.perfect:
        return evaluate_tracked_truth(drives, settings.tracker_config(), arguments.workers)
    return evaluate_tracked_worlds(settings, drives, settings.tracker_config(), arguments.workers)
