"""Which box is which object, by the benchmark's rule; for looking at single errors, which the devkit only averages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bevformer_ros.drawing import Comparison
from bevformer_ros.taxonomy import CLASS_NAMES, CLASSES
from bevformer_ros.types import Detections3D

HIT_DISTANCE = 2.0  # metres from the object, as for the benchmark's errors
_HEADING_PERIODS = np.array([{"barrier": np.pi, "traffic_cone": np.nan}.get(name, 2 * np.pi) for name in CLASS_NAMES])
_RANGES = np.array([entry.evaluation_range for entry in CLASSES])


@dataclass(frozen=True)
class Matches:
    """detection, truth: (m,) rows that belong together. missed: rows of the truth, spurious: rows of the detections
    that belong to nothing."""

    detection: NDArray[np.int64]
    truth: NDArray[np.int64]
    missed: NDArray[np.int64]
    spurious: NDArray[np.int64]


def match(detections: Detections3D, truth: Detections3D, distance: float) -> Matches:
    """Best score first, each detection takes the nearest free object of its class that is nearer than `distance`
    (over ground, in metres)."""
    apart = np.linalg.norm(detections.centers[:, None, :2] - truth.centers[None, :, :2], axis=-1)
    apart[detections.labels[:, None] != truth.labels[None]] = np.inf
    pairs: list[tuple[int, int]] = []
    for row in np.argsort(-detections.scores, kind="stable"):
        column = int(np.argmin(apart[row])) if len(truth) else 0
        if len(truth) and apart[row, column] < distance:
            pairs.append((int(row), column))
            apart[:, column] = np.inf
    rows, columns = np.array(pairs, np.int64).reshape(-1, 2).T
    return Matches(
        detection=rows,
        truth=columns,
        missed=np.setdiff1d(np.arange(len(truth)), columns),
        spurious=np.setdiff1d(np.arange(len(detections)), rows),
    )


def comparison(detections: Detections3D, truth: Detections3D, distance: float) -> Comparison:
    """For a picture: which of the truth was found, which detections are right. distance: as in match."""
    matches = match(detections, truth, distance)
    return Comparison(
        truth,
        found=~np.isin(np.arange(len(truth)), matches.missed),
        hit=~np.isin(np.arange(len(detections)), matches.spurious),
    )


def heading_errors(
    found: NDArray[np.float64], true: NDArray[np.float64], labels: NDArray[np.int64]
) -> NDArray[np.float64]:
    """How far headings (n,) lie apart, in radians, as the devkit counts: a barrier turned by half a turn looks
    the same, and a cone has no heading (NaN)."""
    period = _HEADING_PERIODS[labels]
    return np.abs((found - true + period / 2) % period - period / 2)


@dataclass(frozen=True)
class Tally:
    """Counts over many sets. objects: of the truth. boxes: detections. hits: pairs of both that belong together."""

    objects: int
    boxes: int
    hits: int

    def __str__(self) -> str:
        false = self.boxes - self.hits
        return (
            f"{self.hits} of {self.objects} objects found ({100 * self.hits / max(1, self.objects):.0f} %), "
            f"{false} of {self.boxes} boxes false ({100 * false / max(1, self.boxes):.0f} %)"
        )


def tally(sets: Iterable[tuple[Detections3D, Detections3D]], distance: float) -> Tally:
    """Over pairs of detections and truth in the ego frame, within the benchmark's ranges; distance: as in match."""
    objects = boxes = hits = 0
    for detections, truth in sets:
        found, true = within_range(detections), within_range(truth)
        objects += len(true)
        boxes += len(found)
        hits += len(match(found, true, distance).truth)
    return Tally(objects, boxes, hits)


def within_range(boxes: Detections3D) -> Detections3D:
    """What the benchmark looks at of boxes in the ego frame."""
    return boxes.select(np.linalg.norm(boxes.centers[:, :2], axis=1) < _RANGES[boxes.labels])
