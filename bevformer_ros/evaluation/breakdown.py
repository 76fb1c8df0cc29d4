"""Scores taken apart: by distance, by scene, and how far mAP may lie off because there were only so many scenes.

The confidence intervals are the percentile bootstrap's (Efron 1979): scenes are drawn with replacement, not samples,
since samples of one drive resemble one another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from nuscenes.eval.detection.data_classes import DetectionConfig

from bevformer_ros.evaluation.matching import match
from bevformer_ros.evaluation.protocol import EvaluationSample, Scores, best, in_range, protocol, score
from bevformer_ros.taxonomy import CLASS_NAMES

DISTANCE_EDGES = (0.0, 10.0, 20.0, 30.0, 40.0, 50.0)
RESAMPLES = 1000
_CONFIDENCE = 0.95

Scenes = Mapping[str, Sequence[EvaluationSample]]


@dataclass(frozen=True)
class Interval:
    """value: of all scenes together. low, high: where 95 % of the resampled sets of scenes lie."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} (95 %: {self.low:.4f} to {self.high:.4f})"


def by_distance(samples: Sequence[EvaluationSample]) -> dict[str, Scores]:
    """Scores of what lies in each ring about the ego, truth and boxes each by their own distance: a pair across an edge
    is torn apart, so that the rings together lie a little below the whole."""
    rings = {}
    for near, far in pairwise(DISTANCE_EDGES):
        inside = [_ring(sample, near, far) for sample in samples]
        if any(len(sample.truth) for sample in inside):
            rings[f"{near:g} to {far:g} m"] = score(inside)
    return rings


def _ring(sample: EvaluationSample, near: float, far: float) -> EvaluationSample:
    distances = [np.linalg.norm(boxes.centers[:, :2], axis=1) for boxes in (sample.detections, sample.truth)]
    found, true = ((near <= each) & (each < far) for each in distances)
    return EvaluationSample(
        sample.token, sample.detections.select(found), sample.truth.select(true), sample.velocity_known[true]
    )


def mean_ap_interval(scenes: Scenes, seed: int = 0) -> Interval:
    """Of mAP over the scenes. Raises ValueError for fewer than two."""
    draws = scene_draws(len(scenes), seed)
    return interval_of(_mean_aps(scenes, draws))


def difference_interval(first: Scenes, second: Scenes, seed: int = 0) -> Interval:
    """Of the second's mAP less the first's, over the same scenes, drawn alike for both.

    Raises ValueError for fewer than two scenes, or scenes that are not as many.
    """
    if len(first) != len(second):
        raise ValueError(f"the runs have {len(first)} and {len(second)} scenes, expected the same ones")
    draws = scene_draws(len(first), seed)
    return interval_of(_mean_aps(second, draws) - _mean_aps(first, draws))


def scene_draws(scenes: int, seed: int) -> NDArray[np.int64]:
    """(1 + RESAMPLES, scenes) how often each scene counts; the first row is all of them once."""
    if scenes < 2:
        raise ValueError(f"there is {scenes} scene, expected at least 2 to say how much scenes differ")
    drawn = np.random.default_rng(seed).multinomial(scenes, np.full(scenes, 1 / scenes), RESAMPLES)
    return np.vstack([np.ones((1, scenes), np.int64), drawn])


def interval_of(values: NDArray[np.float64]) -> Interval:
    """values: (1 + RESAMPLES,) of a figure, a row for each of the scene_draws."""
    low, high = np.quantile(values[1:], [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return Interval(float(values[0]), float(low), float(high))


def _mean_aps(scenes: Scenes, draws: NDArray[np.int64]) -> NDArray[np.float64]:
    """(draws,) mAP. Pairs are made within a sample, so they are the same in every draw and made once."""
    config = protocol()
    pieces = [[limited(sample) for sample in samples] for samples in scenes.values()]
    aps = np.zeros((len(CLASS_NAMES), len(config.dist_ths), len(draws)))
    for column, distance in enumerate(config.dist_ths):
        boxes = np.concatenate([_flags(samples, distance, scene) for scene, samples in enumerate(pieces)])
        boxes = boxes[np.argsort(-boxes[:, 1], kind="stable")]
        for label in range(len(CLASS_NAMES)):
            objects = np.array([sum(int((sample.truth.labels == label).sum()) for sample in piece) for piece in pieces])
            own = boxes[boxes[:, 0] == label]
            aps[label, column] = [_average_precision(own, counts, float(counts @ objects), config) for counts in draws]
    return aps.mean(axis=(0, 1))


def limited(sample: EvaluationSample) -> EvaluationSample:
    """To what the benchmark looks at."""
    config = protocol()
    found, seen = sample.detections.select(in_range(sample.detections, config)), in_range(sample.truth, config)
    found = best(found, config.max_boxes_per_sample)
    return EvaluationSample(sample.token, found, sample.truth.select(seen), sample.velocity_known[seen])


def _flags(samples: Sequence[EvaluationSample], distance: float, scene: int) -> NDArray[np.float64]:
    """(boxes, 4): label, score, whether it is right, scene."""
    rows: list[NDArray[np.float64]] = [np.zeros((0, 4))]
    for sample in samples:
        right = np.zeros(len(sample.detections))
        right[match(sample.detections, sample.truth, distance).detection] = 1.0
        found = sample.detections
        rows.append(np.column_stack([found.labels, found.scores, right, np.full(len(found), scene)]))
    return np.concatenate(rows)


def _average_precision(
    boxes: NDArray[np.float64], counts: NDArray[np.int64], objects: float, config: DetectionConfig
) -> float:
    """As the devkit has it, with every box counted as often as its scene. boxes: (n, 4) of a class, best first."""
    if not objects or not len(boxes):
        return 0.0
    weights = counts[boxes[:, 3].astype(int)]
    hits, total = np.cumsum(weights * boxes[:, 2]), np.cumsum(weights)
    if not hits[-1]:
        return 0.0
    counted = weights > 0
    precision = hits[counted] / total[counted]
    curve = np.interp(np.linspace(0, 1, 101), hits[counted] / objects, precision, right=0)
    beyond = np.clip(curve[round(100 * config.min_recall) + 1 :] - config.min_precision, 0, None)
    return float(beyond.mean() / (1 - config.min_precision))
