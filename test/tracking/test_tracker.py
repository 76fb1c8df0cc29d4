"""Cases that can be solved by hand. Ten sets a second, unless a case says otherwise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tracked_boxes import boxes_at

from bevformer_ros import geometry
from bevformer_ros.taxonomy import CLASS_ID
from bevformer_ros.tracking.config import TrackingConfig
from bevformer_ros.tracking.tracker import Tracker
from bevformer_ros.types import Detections3D

PERIOD_NS = 100_000_000
STAY = np.eye(4)


def ids_of(tracks):
    return tracks.ids.tolist()


def test_nothing_seen():
    tracker = Tracker()
    for step in range(3):
        assert len(tracker(Detections3D.empty(step * PERIOD_NS), STAY)) == 0


def test_one_object_keeps_its_id_and_its_speed_is_found():
    """8 m/s along x, of which the model says nothing: the filter finds it."""
    tracker = Tracker()
    for step in range(30):
        tracks = tracker(boxes_at(step * PERIOD_NS, (0.8 * step, 3.0)), STAY)
        assert ids_of(tracks) == [1]
    np.testing.assert_allclose(tracks.boxes.centers[0], [0.8 * 29, 3.0, 0.75], atol=1.0)
    assert 6 < tracks.boxes.velocities[0, 0] < 8
    assert tracks.model_velocities.tolist() == [[0.0, 0.0]]
    car = TrackingConfig().classes.car
    of_one_box = (car.position_std_m + car.depth_std_share * 23.2) ** 2
    assert tracks.covariances[0, 0, 0] < of_one_box / 3


def test_two_crossing_objects_keep_theirs():
    """They meet at x = 10 after 1 s and pass 0.5 m apart, much less than the gate."""
    tracker = Tracker(TrackingConfig())
    for step in range(21):
        there, back = (float(step), 0.0), (20.0 - step, 0.5)
        tracks = tracker(boxes_at(step * PERIOD_NS, there, back, velocities=[(10, 0), (-10, 0)]), STAY)
        assert ids_of(tracks) == [1, 2]
    assert tracks.boxes.centers[0, 0] > 19 and tracks.boxes.centers[1, 0] < 1


def test_a_turning_ego_moves_nothing():
    """A standing car 40 m away; the ego turns by 90 degrees in a second, so that in its frame the car does 63 m/s."""
    tracker = Tracker()
    for step in range(11):
        world_from_bev = geometry.transform_from_rpy((step, 0, 0), (0, 0, step * np.pi / 20))
        seen = boxes_at(step * PERIOD_NS, (40.0, 10.0)).transformed(geometry.invert(world_from_bev))
        tracks = tracker(seen, world_from_bev)
        assert ids_of(tracks) == [1]
        np.testing.assert_allclose(tracks.boxes.centers, seen.centers, atol=1e-6)
        np.testing.assert_allclose(tracks.boxes.velocities, 0, atol=1e-6)
        np.testing.assert_allclose(tracks.boxes.yaws, seen.yaws, atol=1e-6)


@pytest.mark.parametrize(("missing_s", "expected"), [(0.2, 1), (1.0, 1), (2.9, 1), (3.2, 2)])
def test_an_occluded_object_coasts_on(missing_s, expected):
    """Seen for a second at 10 m/s, hidden, seen again where it must be: the same up to three seconds after."""
    tracker = Tracker()
    missing = range(11, 10 + round(10 * missing_s))
    for step in range(32 + len(missing)):
        seen = boxes_at(step * PERIOD_NS, (float(step), 0.0), velocities=[(10, 0)])
        tracks = tracker(Detections3D.empty(step * PERIOD_NS) if step in missing else seen, STAY)
        if step in missing[:3]:
            assert tracks.coasted_s[0] == pytest.approx(0.1 * (step - 10))
            np.testing.assert_allclose(tracks.boxes.centers[0, 0], step, atol=0.3)
            assert tracks.boxes.scores[0] == pytest.approx(0.9 * 0.5 ** (2 * tracks.coasted_s[0]))
        elif step in missing:
            assert len(tracks) == 0
    assert ids_of(tracks) == [expected]


def test_sets_that_are_missing_are_no_misses():
    """A set lost on the way says nothing about the object, however long ago: 2.8 s lie between the two."""
    tracker = Tracker()
    tracker(boxes_at(0, (0.0, 0.0), velocities=[(10, 0)]), STAY)
    tracks = tracker(boxes_at(28 * PERIOD_NS, (28.0, 0.0), velocities=[(10, 0)]), STAY)
    assert ids_of(tracks) == [1] and tracks.coasted_s[0] == 0


def test_ids_go_on_after_a_reset():
    tracker = Tracker()
    assert ids_of(tracker(boxes_at(0, (0.0, 0.0)), STAY)) == [1]
    tracker.reset()
    assert ids_of(tracker(boxes_at(PERIOD_NS, (0.0, 0.0)), STAY)) == [2]


def test_a_dropped_history_begins_anew():
    tracker = Tracker()
    resets = [0, 0, 1, 1]
    found = [ids_of(tracker(boxes_at(step * PERIOD_NS, (0.0, 0.0)), STAY, count)) for step, count in enumerate(resets)]
    assert found == [[1], [1], [2], [2]]


def test_backward_time_begins_anew():
    tracker = Tracker()
    tracker(boxes_at(5 * PERIOD_NS, (0.0, 0.0)), STAY)
    tracks = tracker(boxes_at(4 * PERIOD_NS, (0.0, 0.0)), STAY)
    assert ids_of(tracks) == [2] and tracks.stamp_ns == 4 * PERIOD_NS


def test_a_poor_box_continues_a_track_but_begins_none():
    tracker = Tracker()
    assert len(tracker(boxes_at(0, (9.0, 0.0), scores=0.2), STAY)) == 0
    assert len(tracker(boxes_at(1 * PERIOD_NS, (9.0, 0.0), scores=0.2), STAY)) == 0
    assert ids_of(tracker(boxes_at(2 * PERIOD_NS, (9.0, 0.0), scores=0.9), STAY)) == [1]
    tracks = tracker(boxes_at(3 * PERIOD_NS, (9.2, 0.0), scores=0.2), STAY)
    assert ids_of(tracks) == [1] and tracks.boxes.scores[0] == 0.2 and tracks.coasted_s[0] == 0


def test_a_good_box_comes_before_a_nearer_poor_one():
    tracker = Tracker()
    tracker(boxes_at(0, (9.0, 0.0)), STAY)
    tracks = tracker(boxes_at(PERIOD_NS, (9.0, 0.0), (10.0, 0.0), scores=[0.2, 0.9]), STAY)
    assert ids_of(tracks) == [1] and tracks.boxes.scores[0] == 0.9


def test_middling_boxes_must_repeat_before_they_are_reported():
    tracker = Tracker()
    seen = [len(tracker(boxes_at(step * PERIOD_NS, (9.0, 0.0), scores=0.35), STAY)) for step in range(3)]
    assert seen == [0, 1, 1]


def test_a_middling_box_that_is_missed_once_is_forgotten():
    tracker = Tracker()
    tracker(boxes_at(0, (9.0, 0.0), scores=0.35), STAY)
    tracker(Detections3D.empty(PERIOD_NS), STAY)
    assert len(tracker(boxes_at(2 * PERIOD_NS, (9.0, 0.0), scores=0.35), STAY)) == 0


def test_classes_do_not_mix():
    tracker = Tracker()
    tracker(boxes_at(0, (9.0, 0.0), name="car"), STAY)
    tracks = tracker(boxes_at(PERIOD_NS, (9.0, 0.0), name="truck"), STAY)
    assert ids_of(tracks) == [1, 2]
    assert tracks.boxes.labels.tolist() == [CLASS_ID["car"], CLASS_ID["truck"]]


def test_a_box_turned_round_once_turns_no_track():
    tracker = Tracker()
    yaws = [
        tracker(boxes_at(step * PERIOD_NS, (9.0, 0.0), yaw=np.pi * (step == 5)), STAY).boxes.yaws[0]
        for step in range(9)
    ]
    np.testing.assert_allclose(yaws, 0, atol=1e-6)


def test_a_track_that_began_the_wrong_way_turns_round():
    tracker = Tracker()
    for step in range(4):
        tracks = tracker(boxes_at(step * PERIOD_NS, (9.0, 0.0), yaw=np.pi if step == 0 else 0.1), STAY)
    assert abs(tracks.boxes.yaws[0]) < 0.2


def test_what_is_reported_is_not_what_is_remembered():
    tracker = Tracker()
    tracks = tracker(boxes_at(0, (9.0, 0.0)), STAY)
    tracks.boxes.centers[:] = 100
    tracks.covariances[:] = 100
    again = tracker(boxes_at(PERIOD_NS, (9.0, 0.0)), STAY)
    np.testing.assert_allclose(again.boxes.centers[0, :2], [9, 0])
    assert again.covariances.max() < 100


def test_a_configuration_without_second_stage():
    tracker = Tracker(replace(TrackingConfig(), low_score=0.3))
    tracker(boxes_at(0, (9.0, 0.0)), STAY)
    assert tracker(boxes_at(PERIOD_NS, (9.0, 0.0), scores=0.2), STAY).coasted_s[0] == pytest.approx(0.1)
