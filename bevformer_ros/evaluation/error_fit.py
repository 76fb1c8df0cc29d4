"""How far boxes are off in validation, as an error model for the weights to carry."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bevformer_ros.error_model import Deviations, ErrorModel, RingDeviations, rings_of
from bevformer_ros.evaluation.matching import HIT_DISTANCE, heading_errors, match
from bevformer_ros.evaluation.protocol import EvaluationSample
from bevformer_ros.taxonomy import CLASS_NAMES

RINGS = (10.0, 20.0, 30.0, 40.0, 60.0)
MINIMUM_COUNT = 20  # boxes, for a deviation that is off by less than a sixth in two of three cases


def fit_error_model(samples: Sequence[EvaluationSample]) -> ErrorModel:
    """Of the hits within HIT_DISTANCE, by class and ring about the ego in which the box was seen.

    A class and ring with fewer hits than MINIMUM_COUNT is left out. Raises ValueError where all are.
    """
    rows = np.concatenate([np.zeros((0, 7)), *map(_errors, samples)])
    entries = []
    for label, name in enumerate(CLASS_NAMES):
        for ring in range(len(RINGS)):
            errors = rows[(rows[:, 0] == label) & (rows[:, 1] == ring), 2:]
            if len(errors) >= MINIMUM_COUNT:
                deviations = Deviations(len(errors), *map(_root_mean_square, errors.T))
                entries.append(RingDeviations(name, ring, deviations))
    if not entries:
        raise ValueError(f"no class has {MINIMUM_COUNT} hits at any distance; evaluate more, or other weights")
    return ErrorModel(RINGS, tuple(entries))


def _errors(sample: EvaluationSample) -> NDArray[np.float64]:
    """(hits, 7): label, ring, then errors along and across the line of sight, upwards, of heading and of velocity."""
    matches = match(sample.detections, sample.truth, HIT_DISTANCE)
    found, true = sample.detections.select(matches.detection), sample.truth.select(matches.truth)
    away = found.centers[:, :2]
    sight = away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-9)
    off = found.centers - true.centers
    radial = (off[:, :2] * sight).sum(axis=1)
    tangential = off[:, 1] * sight[:, 0] - off[:, 0] * sight[:, 1]
    speeds = np.linalg.norm(found.velocities - true.velocities, axis=1) / np.sqrt(2)  # of one axis
    speeds[~sample.velocity_known[matches.truth]] = np.nan
    headings = heading_errors(found.yaws, true.yaws, found.labels)
    return np.column_stack([found.labels, rings_of(away, RINGS), radial, tangential, off[:, 2], headings, speeds])


def _root_mean_square(errors: NDArray[np.float64]) -> float:
    """Of those that are known; zero, which stands for unknown, where none is."""
    known = errors[~np.isnan(errors)]
    return float(np.sqrt(np.mean(known**2))) if len(known) else 0.0
