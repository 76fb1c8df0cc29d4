from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("vision_msgs.msg", reason="needs the ROS environment that `make test` makes")

from bevformer_ros.msg import DetectionKinematics
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from bevformer_ros import geometry
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


def test_ids_are_unique_and_join_both_messages(detections):
    boxes = conversions.detections_to_message(detections, "base_link")
    kinematics = conversions.kinematics_to_message(detections, "base_link")
    identities = [entry.id for entry in boxes.detections]
    assert len(set(identities)) == 2
    assert identities == [entry.id for entry in kinematics.detections]
    later = conversions.detections_to_message(replace(detections, stamp_ns=STAMP + 1), "base_link")
    assert not set(identities) & {entry.id for entry in later.detections}


def test_kinematics(detections):
    first, second = conversions.kinematics_to_message(detections, "base_link").detections
    assert (first.class_id, first.class_name, first.attribute) == (3, "car", "vehicle.moving")
    assert (first.velocity.twist.linear.x, first.velocity.twist.linear.y) == (3.0, -1.0)
    assert first.velocity.covariance[0] == -1.0
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
