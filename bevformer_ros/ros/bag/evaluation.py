"""Results against the truth by the nuScenes protocol, latency and drops beside; or a detector on simulated worlds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bevformer_ros.class_map import ClassMap
from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.evaluation.breakdown import Interval, by_distance, difference_interval, mean_ap_interval
from bevformer_ros.evaluation.protocol import EvaluationSample, Scores, score
from bevformer_ros.evaluation.simulated_world import detected, true, world_samples
from bevformer_ros.evaluation.table import part_table, score_table
from bevformer_ros.evaluation.tracked_world import score_tracked
from bevformer_ros.evaluation.tracking import TrackingScores, score_tracks
from bevformer_ros.resources import config_file
from bevformer_ros.ros.bag.files import BagReader
from bevformer_ros.ros.bag.replay_record import drive_of
from bevformer_ros.ros.bag.results import Evaluated, evaluated, read_summary, tracked
from bevformer_ros.ros.bag.run_summary import Summary
from bevformer_ros.ros.detector_loading import detector_for
from bevformer_ros.ros.node.settings import Settings
from bevformer_ros.ros.topics import OUTPUT, OUTPUT_STATUS, OUTPUT_TRACKS, BoxTopics
from bevformer_ros.simulation.drive import Drive
from bevformer_ros.simulation.seeds import EVALUATION_SEEDS
from bevformer_ros.tracking.config import TrackingConfig

UNTRAINED = "UNTRAINED: the weights were random, the boxes mean nothing"


@dataclass(frozen=True)
class Evaluation:
    """scores: over all bags together. scenes: by result bag. runs: by result bag what the detector says of itself.
    losses: what of the bags could not be read."""

    scores: Scores
    scenes: dict[str, Evaluated]
    runs: dict[str, Summary]
    losses: tuple[str, ...] = ()

    @property
    def samples(self) -> list[EvaluationSample]:
        return [sample for scene in self.scenes.values() for sample in scene.samples]

    @property
    def missing(self) -> int:
        return sum(len(scene.missing) for scene in self.scenes.values())

    @property
    def samples_by_scene(self) -> dict[str, tuple[EvaluationSample, ...]]:
        return {name: scene.samples for name, scene in self.scenes.items()}

    @cached_property
    def by_scene(self) -> dict[str, Scores]:
        return {name: score(scene.samples, scene.velocities) for name, scene in self.scenes.items()}

    @cached_property
    def by_distance(self) -> dict[str, Scores]:
        return by_distance(self.samples)

    @cached_property
    def mean_ap(self) -> Interval | None:
        """None where there are not scenes enough to say."""
        return mean_ap_interval(self.samples_by_scene) if len(self.scenes) > 1 else None

    def text(self) -> str:
        parts = [score_table(self.scores, len(self.samples)), part_table(self.by_distance)]
        if self.mean_ap is not None:
            parts += [part_table(self.by_scene), f"mAP over {len(self.scenes)} scenes: {self.mean_ap}"]
        if self.missing:
            parts.append(f"{self.missing} of {len(self.samples)} samples have no result and count as empty.")
        if self.losses:
            parts.append("\n".join(["INCOMPLETE: not all of the bags could be read", *self.losses]))
        parts += [f"{name}\n{summary.table()}" for name, summary in self.runs.items()]
        if not all(summary.trained for summary in self.runs.values()):
            parts.append(UNTRAINED)
        return "\n\n".join(parts)

    def as_json(self) -> dict[str, Any]:
        """As config/evaluation.schema.json has it."""
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
        return {
            "samples": len(self.samples),
            "missing": self.missing,
            "complete": not self.losses,
            "losses": list(self.losses),
            **self.scores.as_json(),
            "mean_ap_interval": None if self.mean_ap is None else [self.mean_ap.low, self.mean_ap.high],
            "by_distance": {name: scores.as_json() for name, scores in self.by_distance.items()},
            "by_scene": {name: scores.as_json() for name, scores in self.by_scene.items()},
            "runs": runs,
        }


def compared(first: Evaluation, second: Evaluation) -> str:
    """Two runs over the same drives, for a terminal. Raises ValueError where the truths are not the same."""
    if [sample.token for sample in first.samples] != [sample.token for sample in second.samples]:
        raise ValueError("the runs have different truths; only results on the same bags, in the same order, compare")
    parts = [part_table({"first": first.scores, "second": second.scores})]
    names = [name for name, entry in first.scores.classes.items() if entry.truths]
    aps = [(name, first.scores.classes[name].ap, second.scores.classes[name].ap) for name in names]
    parts.append("\n".join(f"{name:<22}{one:8.3f}{two:8.3f}{two - one:+8.3f}" for name, one, two in aps))
    if len(first.scenes) > 1:
        difference = difference_interval(first.samples_by_scene, second.samples_by_scene)
        parts.append(f"mAP of the second less the first's: {difference}")
    return "\n\n".join(parts)


def pairs_of(results: Sequence[Path], drives: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Each result with the drive that it came from, as the replay noted it, where no drives are named."""
    if drives and len(drives) != len(results):
        raise ValueError(f"{len(results)} results but {len(drives)} bags with the truth; name one for each, or none")
    return list(zip(results, drives or map(drive_of, results), strict=True))


def evaluate(
    pairs: Sequence[tuple[Path, Path]],
    rig: RigConfig,
    truth: BoxTopics,
    detections: BoxTopics = OUTPUT,
    classes: ClassMap | None = None,
) -> Evaluation:
    """Of (result, drive) pairs, each a scene of its own."""
    scenes: dict[str, Evaluated] = {}
    runs, losses = {}, []
    for result, drive in pairs:
        with BagReader(result) as results, BagReader(drive) as driven:
            scenes[str(result)] = evaluated(results, driven, rig, truth, detections, classes)
            if OUTPUT_STATUS in results.topics:
                runs[str(result)] = read_summary(results)
            losses += [*results.losses, *driven.losses]
    samples = [sample for scene in scenes.values() for sample in scene.samples]
    velocities = any(scene.velocities for scene in scenes.values())
    return Evaluation(score(samples, velocities), scenes, runs, tuple(losses))


def evaluate_tracks(
    pairs: Sequence[tuple[Path, Path]],
    rig: RigConfig,
    truth: BoxTopics,
    tracks: BoxTopics = OUTPUT_TRACKS,
    classes: ClassMap | None = None,
) -> TrackingScores:
    """Of the tracks in result bags, each a scene of its own."""
    scenes = {}
    for result, drive in pairs:
        with BagReader(result) as results, BagReader(drive) as driven:
            scenes[str(result)] = tracked(results, driven, rig, truth, tracks, classes)
    return score_tracks(scenes)


@dataclass(frozen=True)
class WorldEvaluation:
    """scores, samples: of a detector on the worlds of seeds. source: what its boxes are. seen_by: the cameras in whose
    view they count, all where None."""

    scores: Scores
    samples: Sequence[EvaluationSample]
    drives: Sequence[Drive]
    model: str
    trained: bool
    source: str
    seen_by: Sequence[str] | None = None

    @cached_property
    def by_distance(self) -> dict[str, Scores]:
        return by_distance(self.samples)

    @property
    def seeds(self) -> list[int]:
        return [drive.seed for drive in self.drives]

    def text(self) -> str:
        first, last = self.seeds[0], self.seeds[-1]
        view = f" to {', '.join(self.seen_by)}" if self.seen_by else ""
        parts = [
            f"{self.source} of {self.model}, worlds {first} to {last}, truth: what is visible{view}",
            score_table(self.scores, len(self.samples)),
            part_table(self.by_distance),
        ]
        learnable = set(self.seeds).difference(EVALUATION_SEEDS)
        if learnable:
            reserved = f"{EVALUATION_SEEDS.start}:{EVALUATION_SEEDS.stop}"
            parts.append(f"{len(learnable)} of these worlds may have been learned from; only {reserved} is reserved")
        if not self.trained:
            parts.append(UNTRAINED)
        return "\n\n".join(parts)

    def as_json(self) -> dict[str, Any]:
        about = {
            "model": self.model,
            "trained": self.trained,
            "source": self.source,
            "seeds": self.seeds,
            "seen_by": self.seen_by,
        }
        drive = {key: value for key, value in asdict(self.drives[0]).items() if key != "seed"}
        rings = {name: scores.as_json() for name, scores in self.by_distance.items()}
        return {**about, **drive, "samples": len(self.samples), **self.scores.as_json(), "by_distance": rings}


def evaluate_worlds(
    settings: Settings,
    drives: Sequence[Drive],
    proposals: bool = False,
    workers: int = 0,
    seen_by: Sequence[str] | None = None,
) -> WorldEvaluation:
    """Drive the detector of the settings through worlds, as evaluation.simulated_world has it."""
    detector = detector_for(settings, load_yaml(RigConfig, config_file("rigs", settings.rig)))
    samples = world_samples(detector, drives, proposals, workers, seen_by=seen_by)
    source = "proposals" if proposals else "detections"
    return WorldEvaluation(score(samples), samples, drives, detector.config.name, detector.trained, source, seen_by)


def evaluate_tracked_worlds(
    settings: Settings, drives: Sequence[Drive], config: TrackingConfig, workers: int = 0
) -> TrackingScores:
    """Of the detections of the settings' detector on worlds."""
    detector = detector_for(settings, load_yaml(RigConfig, config_file("rigs", settings.rig)))
    return score_tracked(detected(detector, drives, workers), config)


def evaluate_tracked_truth(drives: Sequence[Drive], config: TrackingConfig, workers: int = 0) -> TrackingScores:
    """Of the visible objects of worlds, as if all were detected."""
    return score_tracked(true(drives, workers), config)
