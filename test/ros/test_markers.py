from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("vision_msgs.msg", reason="needs the ROS environment that `make test` makes")

from std_msgs.msg import Header
from visualization_msgs.msg import Marker

from bevformer_ros import geometry
from bevformer_ros.ros.markers import MarkerWriter
from bevformer_ros.taxonomy import CLASS_ID, CLASSES, NO_ATTRIBUTE
from bevformer_ros.types import Detections3D

STAY = np.eye(4)
NAMESPACES = ["boxes", "headings", "velocities", "labels"]


@pytest.fixture
def cars():
    """Two cars, 4 m x 2 m x 1.5 m, heading left; the first one drives, the second one stands."""
    return Detections3D(
        stamp_ns=12_000_000_034,
        centers=np.array([[10.0, 0.0, 1.0], [20.0, 5.0, 1.0]]),
        sizes=np.tile([4.0, 2.0, 1.5], (2, 1)),
        yaws=np.full(2, np.pi / 2),
        velocities=np.array([[0.0, 3.0], [0.0, 0.1]]),
        scores=np.array([0.875, 0.5]),
        labels=np.full(2, CLASS_ID["car"]),
        attributes=np.full(2, NO_ATTRIBUTE),
        from_proposal=np.zeros(2, np.bool_),
    )


def keys(markers, action):
    return [(marker.ns, marker.id) for marker in markers.markers if marker.action == action]


def test_no_boxes():
    assert list(MarkerWriter().write(Detections3D.empty(0), "map", STAY, 0).markers) == []


def test_what_a_car_looks_like(cars):
    markers = MarkerWriter().write(cars.select(np.array([0])), "base_link", STAY, 250_000_000).markers
    assert [marker.ns for marker in markers] == NAMESPACES
    box, heading, velocity, label = markers
    assert (box.type, heading.type, velocity.type, label.type) == (
        Marker.CUBE,
        Marker.LINE_STRIP,
        Marker.ARROW,
        Marker.TEXT_VIEW_FACING,
    )
    for marker in markers:
        assert marker.header.frame_id == "base_link"
        assert (marker.header.stamp.sec, marker.header.stamp.nanosec) == (12, 34)
        assert (marker.lifetime.sec, marker.lifetime.nanosec) == (0, 250_000_000)
    assert (box.scale.x, box.scale.y, box.scale.z) == (4.0, 2.0, 1.5)
    assert (box.color.r, box.color.g, box.color.b) == pytest.approx(tuple(c / 255 for c in CLASSES[3].colour))
    tip = heading.points[1]
    assert (tip.x, tip.y, tip.z) == pytest.approx((10.0, 2.0, 1.75))
    start, end = velocity.points
    assert (start.x, start.y, end.x, end.y) == pytest.approx((10.0, 0.0, 10.0, 3.0))
    assert label.text == "car 0.88"
    assert label.pose.position.z > 1.75


def test_in_a_tilted_frame_all_parts_tilt_together(cars):
    """The frame is rolled by a quarter: what was up lies along -y, what lay along y is up."""
    rolled = geometry.transform_from_rpy((0, 0, 0), (np.pi / 2, 0, 0))
    box, heading, velocity, label = MarkerWriter().write(cars.select(np.array([0])), "map", rolled, 0).markers
    tip, end = heading.points[1], velocity.points[1]
    assert (box.pose.position.x, box.pose.position.y, box.pose.position.z) == pytest.approx((10.0, -1.0, 0.0))
    assert (tip.x, tip.y, tip.z) == pytest.approx((10.0, -1.75, 2.0))
    assert (end.x, end.y, end.z) == pytest.approx((10.0, -1.0, 3.0))
    assert label.pose.position.y < -1.75


def test_a_standing_car_has_no_velocity_arrow(cars):
    markers = MarkerWriter().write(cars, "base_link", STAY, 0)
    assert ("velocities", 0) in keys(markers, Marker.ADD)
    assert ("velocities", 1) not in keys(markers, Marker.ADD)


def test_stale_markers_are_deleted_once(cars):
    writer = MarkerWriter()
    writer.write(cars, "base_link", STAY, 0)
    fewer = writer.write(cars.select(np.array([1])), "base_link", STAY, 0)
    assert sorted(keys(fewer, Marker.DELETE)) == [("boxes", 1), ("headings", 1), ("labels", 1), ("velocities", 0)]
    assert keys(fewer, Marker.ADD) == [("boxes", 0), ("headings", 0), ("labels", 0)]
    none = writer.write(replace(Detections3D.empty(0)), "base_link", STAY, 0)
    assert len(keys(none, Marker.DELETE)) == len(none.markers) == 3
    assert list(writer.write(Detections3D.empty(0), "base_link", STAY, 0).markers) == []


def test_delete_all(cars):
    writer = MarkerWriter()
    writer.write(cars, "base_link", STAY, 0)
    assert keys(writer.delete_all(Header()), Marker.DELETEALL) == [("", 0)]
    assert list(writer.write(Detections3D.empty(0), "base_link", STAY, 0).markers) == []
