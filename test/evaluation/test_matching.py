"""Which box is which object, and how many are found, on cases that one can count."""

from __future__ import annotations

import numpy as np
import pytest

from bevformer_ros.evaluation.matching import Tally, heading_errors, match, tally
from bevformer_ros.taxonomy import CLASS_ID, NO_ATTRIBUTE
from bevformer_ros.types import Detections3D


def boxes(*entries: tuple[str, float, float]) -> Detections3D:
    """(class, x, score) of each, y being 0."""
    count = len(entries)
    return Detections3D(
        0,
        centers=np.array([(x, 0.0, 0.0) for _, x, _ in entries]).reshape(count, 3),
        sizes=np.ones((count, 3)),
        yaws=np.zeros(count),
        velocities=np.zeros((count, 2)),
        scores=np.array([score for *_, score in entries]),
        labels=np.array([CLASS_ID[name] for name, *_ in entries], np.int64),
        attributes=np.full(count, NO_ATTRIBUTE),
        from_proposal=np.zeros(count, np.bool_),
    )


CAR = ("car", 10.0, 1.0)


@pytest.mark.parametrize(
    ("detections", "truth", "pairs"),
    [
        ((), (), []),
        ((CAR,), (), []),
        ((), (CAR,), []),
        ((CAR,), (("bus", 10.0, 1.0),), []),
        ((("car", 12.0, 0.5),), (CAR,), []),
        ((("car", 11.9, 0.5),), (CAR,), [(0, 0)]),
        # The better one takes its nearest, though the other is nearer to that; the other one then takes what is left.
        ((("car", 10.1, 0.3), ("car", 10.5, 0.9)), (CAR, ("car", 11.2, 1.0)), [(0, 1), (1, 0)]),
        ((("car", 10.0, 0.3), ("car", 10.0, 0.9)), (CAR,), [(1, 0)]),
    ],
)
def test_match(detections, truth, pairs):
    found = match(boxes(*detections), boxes(*truth), 2.0)
    assert sorted(zip(found.detection.tolist(), found.truth.tolist(), strict=True)) == pairs
    assert len(found.missed) == len(truth) - len(pairs)
    assert len(found.spurious) == len(detections) - len(pairs)


@pytest.mark.parametrize(
    ("name", "found", "true", "expected"),
    [
        ("car", 0.1, 0.3, 0.2),
        ("car", 3.1, -3.1, 2 * np.pi - 6.2),
        ("car", 0.0, np.pi, np.pi),
        ("barrier", 0.0, np.pi, 0.0),
        ("barrier", 0.0, 2.0, np.pi - 2.0),
        ("traffic_cone", 0.0, 0.0, np.nan),
    ],
)
def test_heading_errors(name, found, true, expected):
    (error,) = heading_errors(np.array([found]), np.array([true]), np.array([CLASS_ID[name]]))
    assert error == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_heading_errors_of_nothing():
    assert len(heading_errors(np.zeros(0), np.zeros(0), np.zeros(0, np.int64))) == 0


def test_tally_of_nothing():
    assert tally([], 2.0) == Tally(0, 0, 0)
    assert str(Tally(0, 0, 0)) == "0 of 0 objects found (0 %), 0 of 0 boxes false (0 %)"


def test_tally_counts_within_the_range_of_each_class():
    first = boxes(CAR, ("car", 30.0, 0.5), ("car", 51.0, 0.9)), boxes(CAR, ("car", 52.0, 1.0))
    # Cones count up to 30 m, cars up to 50 m.
    second = boxes(("traffic_cone", 31.0, 0.9)), boxes(("traffic_cone", 31.0, 1.0), ("car", 49.0, 1.0))
    found = tally([first, second], 2.0)
    assert found == Tally(objects=2, boxes=2, hits=1)
    assert str(found) == "1 of 2 objects found (50 %), 1 of 2 boxes false (50 %)"
