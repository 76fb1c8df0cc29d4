"""Errors of several detectors on those objects alone that all of them find.

A detector that finds more finds harder objects, so its mean errors may rise though every box is better. On common
objects what differs is the boxes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bevformer_ros.evaluation.breakdown import Interval, Scenes, interval_of, limited, scene_draws
from bevformer_ros.evaluation.matching import heading_errors, match
from bevformer_ros.evaluation.protocol import EvaluationSample
from bevformer_ros.taxonomy import CLASS_ID

ERRORS = ("ATE", "AOE", "AVE")  # metres, radians, m/s
_DISTANCE = 2.0  # metres, as the benchmark's errors
_WITHOUT_VELOCITY = (CLASS_ID["barrier"], CLASS_ID["traffic_cone"])


@dataclass(frozen=True)
class CommonObjects:
    """scenes: (n,) the scene's place, of every common object. scene_count: of all scenes. errors: by detector, (n, 3)
    as in ERRORS, NaN where the benchmark has none."""

    scenes: NDArray[np.int64]
    scene_count: int
    errors: dict[str, NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.scenes)

    def means(self, name: str) -> dict[str, float]:
        """Over all objects, not over classes; NaN without any."""
        ones = np.ones((1, self.scene_count), np.int64)
        return dict(zip(ERRORS, map(float, self._means(name, ones)[0]), strict=True))

    def differences(self, first: str, second: str, seed: int = 0) -> dict[str, Interval]:
        """Of the second's means less the first's. Raises ValueError for fewer than two scenes."""
        draws = scene_draws(self.scene_count, seed)
        change = self._means(second, draws) - self._means(first, draws)
        return {error: interval_of(change[:, column]) for column, error in enumerate(ERRORS)}

    def _means(self, name: str, draws: NDArray[np.int64]) -> NDArray[np.float64]:
        """(draws, 3)."""
        errors, known = self.errors[name], np.isfinite(self.errors[name])
        sums, counts = np.zeros((2, self.scene_count, len(ERRORS)))
        np.add.at(sums, self.scenes, np.where(known, errors, 0.0))
        np.add.at(counts, self.scenes, known)
        with np.errstate(invalid="ignore"):
            return np.asarray((draws @ sums) / (draws @ counts))


def common_objects(runs: Mapping[str, Scenes]) -> CommonObjects:
    """Of detectors by name, on the same scenes. Found is what a box of its class matches to 2 m, whatever its score.

    Raises ValueError where the truths are not the same.
    """
    everything = {name: _errors(scenes) for name, scenes in runs.items()}
    (places, _), *others = everything.values()
    if any(not np.array_equal(places, other) for other, _ in others):
        raise ValueError(f"the truths of {', '.join(runs)} differ, expected the same scenes")
    common = np.all([np.isfinite(errors[:, 0]) for _, errors in everything.values()], axis=0)
    scene_count = len(next(iter(runs.values())))
    return CommonObjects(
        places[common], scene_count, {name: errors[common] for name, (_, errors) in everything.items()}
    )


def _errors(scenes: Scenes) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Of every true object: its scene's place, and its errors, all NaN where it was not found."""
    rows = [_sample_errors(limited(sample)) for samples in scenes.values() for sample in samples]
    sizes = [sum(len(limited(sample).truth) for sample in samples) for samples in scenes.values()]
    return np.repeat(np.arange(len(sizes)), sizes), np.concatenate([np.zeros((0, len(ERRORS))), *rows])


def _sample_errors(sample: EvaluationSample) -> NDArray[np.float64]:
    found, true = sample.detections, sample.truth
    matches = match(found, true, _DISTANCE)
    found, matched, labels = found.select(matches.detection), true.select(matches.truth), true.labels[matches.truth]
    moves = sample.velocity_known[matches.truth] & ~np.isin(labels, _WITHOUT_VELOCITY)
    speeds = np.linalg.norm(found.velocities - matched.velocities, axis=1)
    errors = np.full((len(true), len(ERRORS)), np.nan)
    errors[matches.truth, 0] = np.linalg.norm(found.centers[:, :2] - matched.centers[:, :2], axis=1)
    errors[matches.truth, 1] = heading_errors(found.yaws, matched.yaws, labels)
    errors[matches.truth, 2] = np.where(moves, speeds, np.nan)
    return errors
