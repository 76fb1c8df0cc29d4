from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

pytest.importorskip("nuscenes", reason="needs nuscenes-devkit (make test provides it)")

from bevformer_ros.evaluation.simulated_world import Observed, true
from bevformer_ros.evaluation.tracked_world import score_tracked
from bevformer_ros.simulation.drive import Drive
from bevformer_ros.tracking.config import TrackingConfig
from bevformer_ros.tracking.tracker import Tracker
from bevformer_ros.tracking.tracks import Tracks3D
from bevformer_ros.types import Detections3D

DRIVES = [Drive(seed, seconds=6.0, rate=2.0, size=(160, 90)) for seed in (9000, 9001)]


@pytest.fixture(scope="module")
def seen():
    return list(true(DRIVES))


def test_no_sets():
    with pytest.raises(ValueError, match="nothing to evaluate"):
        score_tracked([], TrackingConfig())


def test_the_truth_as_detections(seen):
    scores = score_tracked(seen, TrackingConfig())
    assert scores.samples == len(seen)
    assert scores.summary["amota"] >= 0.95
    assert scores.summary["motp"] < 0.1


def test_nothing_found(seen):
    scores = score_tracked(
        [(observed, Detections3D.empty(boxes.stamp_ns)) for observed, boxes in seen], TrackingConfig()
    )
    assert scores.summary["amota"] == 0


def test_poor_boxes_fill_the_gaps_between_good_ones(seen):
    """Every second look at each object scores too little to begin a track: tracked only with the second stage."""

    def dimmed(index, boxes):
        return replace(boxes, scores=np.full(len(boxes), 0.2 if index % 2 else 0.8))

    sets = [(observed, dimmed(index, boxes)) for index, (observed, boxes) in enumerate(seen[:5])]
    with_poor = score_tracked(sets, TrackingConfig())
    without = score_tracked(sets, TrackingConfig(low_score=0.3))
    assert with_poor.summary["fn"] < without.summary["fn"]


def test_objects_that_stay_in_sight_keep_their_ids():
    """At 10 Hz: no switch from one set to the next in which an object is visible."""
    tracker, last, kept = Tracker(), dict[int, int](), 0
    for observed, boxes in true([Drive(9002, seconds=1.5, rate=10.0, size=(160, 90))]):
        ids = ids_of_objects(observed, tracker(boxes, observed.world_from_bev))
        stayed = ids.keys() & last.keys()
        assert {entry: ids[entry] for entry in stayed} == {entry: last[entry] for entry in stayed}
        kept += len(stayed)
        last = ids
    assert kept > 200


def ids_of_objects(observed: Observed, tracks: Tracks3D) -> dict[int, int]:
    """Track ids by object, by place and class."""
    tracks = tracks.select(tracks.coasted_s == 0)
    apart = np.linalg.norm(tracks.boxes.centers[:, None] - observed.truth.centers[None], axis=-1)
    apart[tracks.boxes.labels[:, None] != observed.truth.labels[None]] = 1000
    own, true_rows = linear_sum_assignment(apart)
    assert len(own) == len(observed.truth) and apart[own, true_rows].max() < 1.5
    return dict(zip(observed.object_ids[true_rows].tolist(), tracks.ids[own].tolist(), strict=True))
