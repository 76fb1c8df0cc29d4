from __future__ import annotations

import numpy as np
import pytest
from tracked_boxes import boxes_at

pytest.importorskip("vision_msgs.msg", reason="needs the ROS environment that `make test` makes")

from visualization_msgs.msg import Marker

from bevformer_ros import geometry
from bevformer_ros.ros import topics
from bevformer_ros.ros.conversions import track_kinematics_to_message, tracks_to_message
from bevformer_ros.ros.track_messages import TRAIL_S, TrackMessages, Trails
from bevformer_ros.tracking.tracker import Tracker
from bevformer_ros.tracking.tracks import Tracks3D
from bevformer_ros.types import SECOND_NS

STAY = np.eye(4)


def track_of(*positions, stamp_ns=0, coasted_s=0.0):
    boxes = boxes_at(stamp_ns, *positions, velocities=[(3.0, 1.0)] * len(positions))
    count = len(boxes)
    covariance = np.array([[4.0, 0.5, 0, 0], [0.5, 1.0, 0, 0], [0, 0, 9.0, 0.25], [0, 0, 0.25, 2.0]])
    return Tracks3D(
        boxes,
        ids=np.arange(count) + 41,
        covariances=np.tile(covariance, (count, 1, 1)),
        z_variances=np.full(count, 0.3),
        yaw_variances=np.full(count, 0.4),
        model_velocities=np.tile([2.0, -1.0], (count, 1)),
        coasted_s=np.full(count, coasted_s),
    )


def test_no_tracks():
    assert tracks_to_message(Tracks3D.empty(0), "base_link").detections == []
    assert track_kinematics_to_message(Tracks3D.empty(0), "base_link").detections == []


def test_a_track_as_a_box():
    (found,) = tracks_to_message(track_of((20.0, 1.0)), "base_link").detections
    assert found.id == "41"
    assert (found.bbox.center.position.x, found.bbox.size.x) == (20.0, 4.0)
    (result,) = found.results
    assert (result.hypothesis.class_id, result.hypothesis.score) == ("car", 0.9)
    covariance = np.array(result.pose.covariance).reshape(6, 6)
    expected = np.diag([4.0, 1.0, 0.3, 0, 0, 0.4])
    expected[0, 1] = expected[1, 0] = 0.5
    np.testing.assert_allclose(covariance, expected)


def test_a_track_has_two_velocities():
    (found,) = track_kinematics_to_message(track_of((20.0, 1.0), coasted_s=0.25), "base_link").detections
    assert (found.id, found.coasted_s) == ("41", 0.25)
    linear, model = found.velocity.twist.linear, found.model_velocity
    assert (linear.x, linear.y, model.x, model.y) == (3.0, 1.0, 2.0, -1.0)
    covariance = np.array(found.velocity.covariance).reshape(6, 6)
    np.testing.assert_allclose(covariance[:2, :2], [[9.0, 0.25], [0.25, 2.0]])
    assert np.count_nonzero(covariance) == 4


def messages_of(steps, wanted=lambda _: True):
    """Of a car that stands at (20, 0) in the world, while the ego drives towards it at 10 m/s."""
    tracker, writer, found = Tracker(), TrackMessages("base_link"), []
    for step in range(steps):
        world_from_bev = geometry.transform_from_rpy((step, 0, 0), (0, 0, 0))
        boxes = boxes_at(step * SECOND_NS // 10, (20.0 - step, 0.0))
        found.append(dict(writer.of(tracker(boxes, world_from_bev), world_from_bev, STAY, 0.1 * SECOND_NS, wanted)))
    return found


def test_the_trail_of_what_stands_is_a_point():
    markers = messages_of(5)[-1][topics.TRACK_MARKERS].markers
    by_name = {marker.ns: marker for marker in markers if marker.action == Marker.ADD}
    assert set(by_name) == {"boxes", "headings", "labels", "trails"}
    assert {marker.id for marker in by_name.values()} == {1}
    assert by_name["labels"].text == "1 car 0.90"
    trail = by_name["trails"].points
    assert len(trail) == 5
    np.testing.assert_allclose([(point.x, point.y) for point in trail], [(16.0, 0.0)] * 5, atol=1e-6)


def test_markers_only_where_somebody_looks():
    (found,) = messages_of(1, wanted=lambda _: False)
    assert set(found) == {topics.TRACKS, topics.TRACK_KINEMATICS}


def test_trails_are_short_and_forget_what_comes_later():
    trails = Trails()
    for second in range(10):
        trails.add(track_of((float(second), 0.0), stamp_ns=second * SECOND_NS))
    now = track_of((9.0, 0.0), stamp_ns=9 * SECOND_NS)
    np.testing.assert_allclose(trails.of(now)[0][:, 0], np.arange(9 - TRAIL_S, 10))
    back = track_of((0.0, 0.0), stamp_ns=0)
    trails.add(back)
    assert len(trails.of(back)[0]) == 1
