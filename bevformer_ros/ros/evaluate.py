"""`bevformer-ros evaluate`: results against the truth by the nuScenes protocol, latency and drops beside."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.evaluation.protocol import EvaluationSample, Scores, score
from bevformer_ros.evaluation.table import score_table
from bevformer_ros.ros.bag import BagReader
from bevformer_ros.ros.bag_scene import STATUS, TRUTH, BoxTopics
from bevformer_ros.ros.demo_summary import Summary
from bevformer_ros.ros.result_bag import Evaluated, drive_of, evaluated, read_summary
from bevformer_ros.ros.simulate import DEFAULT_RIG
from bevformer_ros.share import config_file


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
            parts.append("UNTRAINED: the weights were random, the boxes mean nothing")
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all of it there too")


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """What is evaluated against what."""
    parser.add_argument("results", type=Path, nargs="+", metavar="OUT", help="bags with the detector's results")
    parser.add_argument(
        "--ground-truth", type=Path, nargs="+", default=[], metavar="BAG", help="bags with truth and tf, one for each "
        "OUT; without it those that were replayed"
    )  # fmt: skip
    parser.add_argument(
        "--rig", default=DEFAULT_RIG, help="frames: name in config/rigs or a YAML (default %(default)s)"
    )
    parser.add_argument("--truth", default=TRUTH.boxes, metavar="TOPIC", help="(default %(default)s)")
    parser.add_argument("--truth-kinematics", default=TRUTH.kinematics, metavar="TOPIC", help="(default %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    rig = load_yaml(RigConfig, config_file("rigs", arguments.rig))
    truth = BoxTopics(arguments.truth, arguments.truth_kinematics)
    found = evaluate(pairs_of(arguments.results, arguments.ground_truth), rig, truth)
    print(found.text())
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found.as_json(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return 0
