"""`bevformer-ros evaluate`: results against the truth by the nuScenes protocol, latency and drops beside.

With --world there are no results yet: the detector drives through worlds, as `evaluation.simulated_world` has it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.evaluation.protocol import EvaluationSample, Scores, score
from bevformer_ros.evaluation.simulated_world import KEYFRAME_RATE, evaluate_world
from bevformer_ros.evaluation.table import score_table
from bevformer_ros.resources import config_file
from bevformer_ros.ros.bag.files import BagReader
from bevformer_ros.ros.bag.results import Evaluated, drive_of, evaluated, read_summary
from bevformer_ros.ros.bag.run_summary import Summary
from bevformer_ros.ros.bag.scene import STATUS, TRUTH, BoxTopics
from bevformer_ros.ros.bag.simulated_drive import DEFAULT_RIG, image_size
from bevformer_ros.ros.detector_loading import load_network
from bevformer_ros.ros.node.parameters import Settings
from bevformer_ros.simulation.drive import Drive
from bevformer_ros.simulation.seeds import EVALUATION_SEEDS

UNTRAINED = "UNTRAINED: the weights were random, the boxes mean nothing"


@dataclass(frozen=True)
class Evaluation:
    """scores: over all bags together. parts: by bag. runs: by result bag what the detector says of itself."""

    scores: Scores
    parts: tuple[Evaluated, ...]
    runs: dict[str, Summary]

    @property
    def samples(self) -> list[EvaluationSample]:
        return [sample for part in self.parts for sample in part.samples]

    @property
    def missing(self) -> int:
        return sum(len(part.missing) for part in self.parts)

    def text(self) -> str:
        parts = [score_table(self.scores, len(self.samples))]
        if self.missing:
            parts.append(f"{self.missing} of {len(self.samples)} samples have no result and count as empty.")
        parts += [f"{name}\n{summary.table()}" for name, summary in self.runs.items()]
        if not all(summary.trained for summary in self.runs.values()):
            parts.append(UNTRAINED)
        return "\n\n".join(parts)

    def as_json(self) -> dict[str, Any]:
        runs = {
            name: {
                "model": summary.model,
                "trained": summary.trained,
                "sets_processed": summary.processed,
                "sets_dropped": summary.dropped,
                "latency_ms": {entry.stage: [entry.median, entry.percentile_95] for entry in summary.stages},
            }
            for name, summary in self.runs.items()
        }
        return {"samples": len(self.samples), "missing": self.missing, **self.scores.as_json(), "runs": runs}


def pairs_of(results: Sequence[Path], drives: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Each result with the drive that it came from, as the replay noted it, where no drives are named."""
    if drives and len(drives) != len(results):
        raise ValueError(f"{len(results)} results but {len(drives)} bags with the truth; name one for each, or none")
    return list(zip(results, drives or map(drive_of, results), strict=True))


def evaluate(pairs: Sequence[tuple[Path, Path]], rig: RigConfig, truth: BoxTopics) -> Evaluation:
    parts: list[Evaluated] = []
    runs = {}
    for result, drive in pairs:
        with BagReader(result) as results, BagReader(drive) as driven:
            parts.append(evaluated(results, driven, rig, truth))
            if STATUS in results.topics:
                runs[str(result)] = read_summary(results)
    samples = [sample for part in parts for sample in part.samples]
    return Evaluation(score(samples), tuple(parts), runs)


def world_range(text: str) -> range:
    """9000:9010 as range(9000, 9010), for argparse."""
    first, _, stop = text.partition(":")
    if not (first.isdigit() and stop.isdigit() and int(first) < int(stop)):
        raise argparse.ArgumentTypeError(f"{text!r} names no worlds, expected FIRST:STOP such as 9000:9010")
    return range(int(first), int(stop))


@dataclass(frozen=True)
class WorldEvaluation:
    """scores: of a detector on the worlds of seeds. source: what its boxes are."""

    scores: Scores
    drives: Sequence[Drive]
    model: str
    trained: bool
    source: str

    @property
    def samples(self) -> int:
        return sum(len(drive.reference_stamps) for drive in self.drives)

    @property
    def seeds(self) -> list[int]:
        return [drive.seed for drive in self.drives]

    def text(self) -> str:
        first, last = self.seeds[0], self.seeds[-1]
        parts = [
            f"{self.source} of {self.model}, worlds {first} to {last}, truth: what is visible",
            score_table(self.scores, self.samples),
        ]
        learnable = set(self.seeds).difference(EVALUATION_SEEDS)
        if learnable:
            reserved = f"{EVALUATION_SEEDS.start}:{EVALUATION_SEEDS.stop}"
            parts.append(f"{len(learnable)} of these worlds may have been learned from; only {reserved} is reserved")
        if not self.trained:
            parts.append(UNTRAINED)
        return "\n\n".join(parts)

    def as_json(self) -> dict[str, Any]:
        about = {"model": self.model, "trained": self.trained, "source": self.source, "seeds": self.seeds}
        drive = {key: value for key, value in asdict(self.drives[0]).items() if key != "seed"}
        return {**about, **drive, "samples": self.samples, **self.scores.as_json()}


def evaluate_worlds(arguments: argparse.Namespace) -> WorldEvaluation:
    """Drive the detector that the arguments name through the worlds that they name."""
    own_model = arguments.weights if Path(arguments.weights).suffix == ".safetensors" else Settings.model
    settings = Settings(arguments.rig, arguments.model or own_model, arguments.weights, arguments.device)
    detector = load_network(settings, load_yaml(RigConfig, config_file("rigs", settings.rig)))
    drives = [Drive(seed, arguments.seconds, arguments.rate, arguments.size) for seed in arguments.world]
    scores = evaluate_world(detector, drives, arguments.proposals, arguments.jobs)
    source = "proposals" if arguments.proposals else "detections"
    return WorldEvaluation(scores, drives, detector.config.name, detector.trained, source)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser, "*")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all of it there too")
    settings, drive = Settings(), Drive()
    world = parser.add_argument_group("in place of results: the detector itself, on the simulated world")
    world.add_argument(
        "--world", type=world_range, metavar="FIRST:STOP", help="seeds, without STOP; reserved for this are "
        f"{EVALUATION_SEEDS.start}:{EVALUATION_SEEDS.stop}"
    )  # fmt: skip
    world.add_argument(
        "--model", help="name in config/models or a file (default: what .safetensors weights hold, or else "
        f"{settings.model})"
    )  # fmt: skip
    world.add_argument("--weights", default=settings.weights, help="file; without it the model's own or random ones")
    world.add_argument("--device", default=settings.device, help="where the network runs (default %(default)s)")
    world.add_argument("--proposals", action="store_true", help="score the perspective head's boxes, not the decoder's")
    world.add_argument("--seconds", type=float, default=drive.seconds, help="of each world (default %(default)s)")
    world.add_argument("--rate", type=float, default=KEYFRAME_RATE, help="image sets a second (default %(default)s)")
    world.add_argument("--size", type=image_size, default=drive.size, metavar="WxH", help="images (default 800x450)")
    world.add_argument("--jobs", type=int, default=0, help="processes that render ahead (default %(default)s: none)")


def add_source_arguments(parser: argparse.ArgumentParser, count: Literal["+", "*"] = "+") -> None:
    """What is evaluated against what. count: how many results there must be."""
    parser.add_argument("results", type=Path, nargs=count, metavar="OUT", help="bags with the detector's results")
    parser.add_argument(
        "--ground-truth", type=Path, nargs="+", default=[], metavar="BAG", help="bags with truth and tf, one for each "
        "OUT; without it those that were replayed"
    )  # fmt: skip
    parser.add_argument(
        "--rig", default=DEFAULT_RIG, help="frames: name in config/rigs or a YAML (default %(default)s)"
    )
    parser.add_argument("--truth", default=TRUTH.boxes, metavar="TOPIC", help="(default %(default)s)")
    parser.add_argument("--truth-kinematics", default=TRUTH.kinematics, metavar="TOPIC", help="(default %(default)s)")


def evaluate_results(arguments: argparse.Namespace) -> Evaluation:
    """The bags that the arguments name."""
    rig = load_yaml(RigConfig, config_file("rigs", arguments.rig))
    truth = BoxTopics(arguments.truth, arguments.truth_kinematics)
    return evaluate(pairs_of(arguments.results, arguments.ground_truth), rig, truth)


def run(arguments: argparse.Namespace) -> int:
    if bool(arguments.results) == bool(arguments.world):
        raise ValueError("expected either bags with results or --world, got " + ("both" if arguments.world else "none"))
    found = evaluate_worlds(arguments) if arguments.world else evaluate_results(arguments)
    print(found.text())
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found.as_json(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return 0
