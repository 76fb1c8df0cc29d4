"""Cases whose arithmetic fits in a comment."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tracked_boxes import boxes_at

pytest.importorskip("nuscenes", reason="needs nuscenes-devkit (make test provides it)")

from bevformer_ros.evaluation.tracking import IdentifiedBoxes, TrackedSample, score_tracks
from bevformer_ros.types import Detections3D

HERE = np.zeros(3)


def car_drives(track_ids, missing=(), name="car"):
    """One car, true id 7, at 10 m/s for as many half seconds as there are ids; 1 m off in its track."""
    samples = []
    for step, identity in enumerate(track_ids):
        stamp_ns = step * 500_000_000
        true = boxes_at(stamp_ns, (-20 + 5.0 * step, 0.0), scores=1.0, name=name)
        found = boxes_at(stamp_ns, (-20 + 5.0 * step, 1.0), scores=0.8, name=name)
        tracks = (
            IdentifiedBoxes(Detections3D.empty(stamp_ns), ())
            if step in missing
            else IdentifiedBoxes(found, (identity,))
        )
        samples.append(TrackedSample(stamp_ns, tracks, IdentifiedBoxes(true, ("7",)), HERE))
    return {"drive": samples}


def test_nothing_to_evaluate():
    with pytest.raises(ValueError, match="nothing to evaluate"):
        score_tracks({"drive": []})


def test_a_track_that_stays():
    scores = score_tracks(car_drives("aaaaaa"))
    assert list(scores.classes) == ["car"]
    assert scores.summary["amota"] == pytest.approx(1.0)
    assert scores.summary["amotp"] == pytest.approx(1.0)  # metres
    assert (scores.summary["ids"], scores.summary["fp"], scores.summary["fn"]) == (0, 0, 0)


def test_a_track_that_changes_its_name():
    """One switch: of six true boxes five are matches, MOTA = 1 - 1 / 6."""
    scores = score_tracks(car_drives("aaabbb"))
    assert scores.summary["ids"] == 1
    assert scores.classes["car"]["mota"] == pytest.approx(5 / 6)


def test_a_gap_is_filled_in_as_the_benchmark_does():
    scores = score_tracks(car_drives("aaaaaa", missing=(2,)))
    assert (scores.summary["fn"], scores.summary["ids"]) == (0, 0)


@pytest.mark.parametrize("missing", [(1, 2, 3), (1, 2, 3, 4)])
def test_in_a_long_gap_the_car_goes_on(missing):
    """5 m a set: weighed the wrong way round, the second set of four would lie 10 m from the car."""
    scores = score_tracks(car_drives("aaaaaa", missing=missing))
    assert (scores.summary["fp"], scores.summary["fn"], scores.summary["ids"]) == (0, 0, 0)
    assert scores.summary["motp"] == pytest.approx(1.0)


def test_a_track_that_coasts_through_a_gap_of_the_truth_is_right():
    samples = car_drives("aaaaaa")["drive"]
    for step in (1, 2, 3):
        hidden = IdentifiedBoxes(Detections3D.empty(samples[step].stamp_ns), ())
        samples[step] = replace(samples[step], truth=hidden)
    scores = score_tracks({"drive": samples})
    assert (scores.summary["fp"], scores.summary["fn"]) == (0, 0)


def test_a_track_that_begins_late_misses():
    scores = score_tracks(car_drives("aaaaaa", missing=(0, 1)))
    assert scores.summary["fn"] == 2
    assert scores.summary["recall"] == pytest.approx(4 / 6)


def test_what_lies_beyond_the_range_is_nothing():
    """Seen from 60 m to the side, where cars count up to 50 m."""
    samples = [replace(sample, ego=np.array([0.0, -60.0, 0.0])) for sample in car_drives("aaaaaa")["drive"]]
    assert score_tracks({"drive": samples}).classes == {}


def test_barriers_are_not_tracked_by_the_benchmark():
    assert score_tracks(car_drives("aaaaaa", name="barrier")).classes == {}


def test_the_table_and_the_file():
    scores = score_tracks(car_drives("aaabbb"))
    header, row, total = scores.text().splitlines()[1:]
    assert header.split()[:3] == ["class", "AMOTA", "AMOTP"]
    assert row.split()[0] == "car" and total.split()[0] == "all"
    assert scores.as_json()["classes"]["car"]["ids"] == 1


def test_every_box_needs_an_id():
    with pytest.raises(ValueError, match="there are 1 boxes but 2 ids"):
        IdentifiedBoxes(boxes_at(0, (0.0, 0.0)), ("1", "2"))
