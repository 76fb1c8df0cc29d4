from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("vision_msgs.msg", reason="needs the ROS environment that `make test` makes")

from bevformer_ros.msg import DetectionKinematics
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from bevformer_ros import geometry
from bevformer_ros.error_model import Covariances
from bevformer_ros.ros import conversions
from bevformer_ros.taxonomy import ATTRIBUTE_ID, CLASS_ID, NO_ATTRIBUTE
from bevformer_ros.types import Detections3D

STAMP = 1_532_402_927_647_951_001


@pytest.fixture
def detections():
    return Detections3D(
        stamp_ns=STAMP,
        centers=np.array([[1.0, 2.0, 3.0], [-4.0, 5.0, -6.0]]),
        sizes=np.array([[4.5, 1.9, 1.6], [0.7, 0.6, 1.8]]),
        yaws=np.array([0.5, -3.0]),
        velocities=np.array([[3.0, -1.0], [0.0, 0.5]]),
        scores=np.array([0.9, 0.25]),
        labels=np.array([CLASS_ID["car"], CLASS_ID["pedestrian"]]),
        attributes=np.array([ATTRIBUTE_ID["vehicle.moving"], NO_ATTRIBUTE]),
        from_proposal=np.array([True, False]),
    )


@pytest.mark.parametrize("nanoseconds", [0, 1, 999_999_999, 1_000_000_000, STAMP])
def test_stamps_round_trip(nanoseconds):
    assert conversions.stamp_to_ns(conversions.stamp_from_ns(nanoseconds)) == nanoseconds


def test_transforms_round_trip():
    target_from_source = geometry.transform_from_rpy((1.0, -2.0, 0.5), (0.1, -0.2, 2.5))
    message = conversions.transform_to_message(target_from_source, "map", "base_link", STAMP)
    assert (message.header.frame_id, message.child_frame_id) == ("map", "base_link")
    assert conversions.stamp_to_ns(message.header.stamp) == STAMP
    assert np.allclose(conversions.transform_from_message(message.transform), target_from_source, atol=1e-12)


def test_no_detections():
    empty = Detections3D.empty(STAMP)
    boxes = conversions.detections_to_message(empty, "base_link")
    kinematics = conversions.kinematics_to_message(empty, "base_link")
    assert list(boxes.detections) == list(kinematics.detections) == []
    assert boxes.header == kinematics.header
    assert len(conversions.detections_from_messages(boxes, kinematics)) == 0


def test_detections_in_the_layout_of_vision_msgs(detections):
    message = conversions.detections_to_message(detections, "base_link")
    assert message.header.frame_id == "base_link"
    first = message.detections[0]
    assert first.header == message.header
    assert (first.bbox.size.x, first.bbox.size.y, first.bbox.size.z) == (4.5, 1.9, 1.6)
    assert first.results[0].hypothesis.class_id == "car"
    assert first.results[0].pose.pose == first.bbox.center
    assert conversions.yaw_of_quaternion(first.bbox.center.orientation) == pytest.approx(0.5)


@pytest.mark.parametrize(("ids", "expected"), [(None, ["", ""]), (["7", "8"], ["7", "8"])])
def test_ids_are_empty_where_nobody_follows_the_objects(detections, ids, expected):
    for to_message in (conversions.detections_to_message, conversions.kinematics_to_message):
        assert [entry.id for entry in to_message(detections, "base_link", ids=ids).detections] == expected


def test_boxes_keep_their_full_orientation_in_a_tilted_frame(detections):
    """As the box stands in its own frame, so it stands in the other; the message tells it as a whole."""
    frame_from_boxes = geometry.transform_from_rpy((1.0, 2.0, 3.0), (0.1, -0.2, 1.5))
    boxes = conversions.detections_to_message(detections, "map", frame_from_boxes)
    kinematics = conversions.kinematics_to_message(detections, "map", frame_from_boxes)
    for row, (box, extra) in enumerate(conversions.joined(boxes, kinematics)):
        place, turn = box.bbox.center.position, box.bbox.center.orientation
        found = geometry.transform((place.x, place.y, place.z), (turn.x, turn.y, turn.z, turn.w))
        own = geometry.transform_from_rpy(detections.centers[row], (0.0, 0.0, detections.yaws[row]))
        np.testing.assert_allclose(found, frame_from_boxes @ own, atol=1e-12)
        linear = extra.velocity.twist.linear
        expected = frame_from_boxes[:3, :2] @ detections.velocities[row]
        np.testing.assert_allclose((linear.x, linear.y, linear.z), expected)


def test_covariances_turn_with_the_frame(detections):
    """4 m² along x and 1 m² along y in the boxes' frame, seen from a frame that is turned by a quarter."""
    poses = np.tile(np.diag([4.0, 1.0, 0.25, 0.0, 0.0, 0.01]), (2, 1, 1))
    velocities = np.tile(np.diag([9.0, 0.0, 0.0, 0.0, 0.0, 0.0]), (2, 1, 1))
    turned = geometry.transform_from_rpy((0, 0, 0), (0, 0, np.pi / 2))
    arguments = detections, "map", turned, None, Covariances(poses, velocities)
    box = conversions.detections_to_message(*arguments).detections[0]
    covariance = np.reshape(box.results[0].pose.covariance, (6, 6))
    np.testing.assert_allclose(covariance, np.diag([1.0, 4.0, 0.25, 0.0, 0.0, 0.01]), atol=1e-12)
    extra = conversions.kinematics_to_message(*arguments).detections[0]
    assert np.reshape(extra.velocity.covariance, (6, 6))[1, 1] == pytest.approx(9.0)


def test_labels():
    labels = conversions.label_info(Header(frame_id="base_link"), 0.25)
    assert labels.threshold == 0.25
    assert {entry.class_id: entry.class_name for entry in labels.class_map}[CLASS_ID["car"]] == "car"
    assert len(labels.class_map) == 10


def test_kinematics(detections):
    first, second = conversions.kinematics_to_message(detections, "base_link").detections
    assert (first.class_id, first.class_name, first.attribute) == (3, "car", "vehicle.moving")
    assert (first.velocity.twist.linear.x, first.velocity.twist.linear.y) == (3.0, -1.0)
    assert not first.velocity.covariance.any(), "zeros stand for unknown; -1 would mean that there is no velocity"
    assert first.query_source == DetectionKinematics.QUERY_PROPOSAL
    assert (second.attribute, second.query_source) == ("", DetectionKinematics.QUERY_LEARNED)


def test_detections_round_trip(detections):
    boxes = conversions.detections_to_message(detections, "base_link")
    back = conversions.detections_from_messages(boxes, conversions.kinematics_to_message(detections, "base_link"))
    assert back.stamp_ns == detections.stamp_ns
    for name in ("centers", "sizes", "yaws", "velocities", "scores", "labels", "attributes", "from_proposal"):
        assert np.allclose(getattr(back, name), getattr(detections, name)), name
    bare = conversions.detections_from_messages(boxes)
    assert not bare.velocities.any()
    assert (bare.attributes == NO_ATTRIBUTE).all()
    assert not bare.from_proposal.any()


def test_messages_that_do_not_fit_are_refused(detections):
    boxes = conversions.detections_to_message(detections, "base_link")
    others = conversions.kinematics_to_message(replace(detections, stamp_ns=1), "base_link")
    with pytest.raises(ValueError, match="same header"):
        conversions.detections_from_messages(boxes, others)
    fewer = conversions.kinematics_to_message(detections.select(np.array([0])), "base_link")
    with pytest.raises(ValueError, match="2 boxes of .* and kinematics of 1 of"):
        conversions.detections_from_messages(boxes, fewer)
    boxes.detections[0].results[0].hypothesis.class_id = "tram"
    with pytest.raises(ValueError, match="class 'tram' is not one of barrier"):
        conversions.detections_from_messages(boxes)
    boxes.detections[0].results = []
    with pytest.raises(ValueError, match="has no hypothesis"):
        conversions.detections_from_messages(boxes)


def test_images():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    message = conversions.image_to_message(image[:, ::-1], Header(frame_id="cam"))
    assert isinstance(message, Image)
    assert (message.height, message.width, message.step, message.encoding) == (2, 4, 12, "bgr8")
    assert np.array_equal(np.frombuffer(message.data, np.uint8).reshape(2, 4, 3), image[:, ::-1])
    assert bytes(conversions.jpeg_to_message(b"abc", Header()).data) == b"abc"


def test_calibration_of_an_undistorted_image():
    intrinsics = np.array([[100.0, 0.0, 40.0], [0.0, 110.0, 30.0], [0.0, 0.0, 1.0]])
    info = conversions.camera_info(Header(frame_id="cam"), (60, 80, 3), intrinsics)
    assert (info.header.frame_id, info.height, info.width, info.distortion_model) == ("cam", 60, 80, "plumb_bob")
    assert np.array_equal(np.reshape(info.k, (3, 3)), intrinsics)
    assert np.array_equal(np.reshape(info.r, (3, 3)), np.eye(3))
    assert np.array_equal(np.reshape(info.p, (3, 4)), np.column_stack([intrinsics, np.zeros(3)]))
    assert list(info.d) == [0.0] * 5
