"""What tracking costs for each set of boxes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from time import process_time

import numpy as np

from bevformer_ros.taxonomy import CLASS_NAMES, CLASSES, NO_ATTRIBUTE
from bevformer_ros.tracking.tracker import Tracker
from bevformer_ros.types import SECOND_NS, Detections3D

_RATE = 10  # sets a second
_WARM_UP = 20  # sets
_HALF_SIDE_M = 51.2
_SPEED_STD_MPS = 5.0
_NOISE_STD_M = 0.2


@dataclass(frozen=True)
class TrackingReport:
    """Milliseconds of CPU time per set, once as many tracks as boxes exist. tracks: at the last set."""

    boxes: int
    sets: int
    tracks: int
    median_ms: float
    percentile_95_ms: float


def measure(boxes: int, sets: int) -> TrackingReport:
    """Boxes that move straight through the range of the models, of all classes, seen with noise and scores of 0.1 to 1,
    so that both stages have work. Raises ValueError for less than one."""
    if boxes < 1 or sets < 1:
        raise ValueError(f"boxes and sets must be at least 1, got {boxes} and {sets}")
    tracker, times_ms, world_from_bev = Tracker(), [], np.eye(4)
    for detections in _scene(boxes, sets + _WARM_UP):
        started = process_time()
        tracks = tracker(detections, world_from_bev)
        times_ms.append(1000 * (process_time() - started))
    median, high = np.percentile(times_ms[_WARM_UP:], (50, 95))
    return TrackingReport(boxes, sets, len(tracks), float(median), float(high))


def _scene(boxes: int, sets: int) -> Iterator[Detections3D]:
    random = np.random.default_rng(0)
    starts = random.uniform(-_HALF_SIDE_M, _HALF_SIDE_M, (boxes, 2))
    velocities = random.normal(0, _SPEED_STD_MPS, (boxes, 2))
    labels = random.integers(0, len(CLASS_NAMES), boxes)
    sizes = np.array([CLASSES[label].canonical_size for label in labels])
    for index in range(sets):
        seen = starts + velocities * index / _RATE + random.normal(0, _NOISE_STD_M, (boxes, 2))
        yield Detections3D(
            round(index * SECOND_NS / _RATE),
            centers=np.column_stack([seen, sizes[:, 2] / 2]),
            sizes=sizes,
            yaws=np.arctan2(velocities[:, 1], velocities[:, 0]),
            velocities=velocities,
            scores=random.uniform(0.1, 1.0, boxes),
            labels=labels,
            attributes=np.full(boxes, NO_ATTRIBUTE),
            from_proposal=np.zeros(boxes, np.bool_),
        )
