"""Messages for Autoware field by field, with numbers that can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID, uuid5

import numpy as np
import pytest
from tracked_boxes import boxes_at

pytest.importorskip("autoware_perception_msgs", reason="needs Autoware's messages, which `make env` builds")

from autoware_perception_msgs.msg import DetectedObjectKinematics, ObjectClassification, Shape, TrackedObjectKinematics

from bevformer_ros.error_model import Covariances
from bevformer_ros.ros.autoware.objects import Uncertainty, detected_objects, tracked_objects
from bevformer_ros.ros.conversions import (
    detections_to_message,
    kinematics_to_message,
    track_kinematics_to_message,
    tracks_to_message,
)
from bevformer_ros.taxonomy import CLASS_NAMES
from bevformer_ros.tracking.tracks import Tracks3D
from bevformer_ros.types import Detections3D

RUN = UUID(int=7)
# 0.5 m across; at 20 m 0.5 + 0.1 * 20 = 2.5 m along the line of sight.
UNCERTAIN = Uncertainty(
    position_std_m=(0.5,) * 10, depth_std_share=(0.1,) * 10, velocity_std_mps=(2.0,) * 10, yaw_std_rad=(0.2,) * 10
)


def translated(boxes, uncertainty=UNCERTAIN):
    arguments = detections_to_message(boxes, "base_link"), kinematics_to_message(boxes, "base_link")
    return detected_objects(*arguments, uncertainty)


def tracks_of(boxes, covariance):
    count = len(boxes)
    return Tracks3D(
        boxes,
        ids=np.arange(count) + 41,
        covariances=np.tile(covariance, (count, 1, 1)),
        z_variances=np.full(count, 0.3),
        yaw_variances=np.full(count, 0.4),
        model_velocities=np.zeros((count, 2)),
        coasted_s=np.zeros(count),
    )


def translated_tracks(tracks):
    arguments = tracks_to_message(tracks, "base_link"), track_kinematics_to_message(tracks, "base_link")
    return tracked_objects(*arguments, RUN, 0.5)


def test_nothing():
    message = translated(Detections3D.empty(3_000_000_004))
    assert message.objects == [] and message.header.frame_id == "base_link"
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (3, 4)
    assert translated_tracks(Tracks3D.empty(0)).objects == []


def test_a_car_20_m_ahead_that_drives_to_the_left():
    """It looks to the left (yaw 90 degrees) and does 3 m/s that way, so that in its own axes it drives forward."""
    boxes = boxes_at(0, (20.0, 0.0), velocities=[(0.0, 3.0)], scores=0.75, yaw=np.pi / 2)
    (found,) = translated(boxes).objects
    assert found.existence_probability == 0.75
    assert [(entry.label, entry.probability) for entry in found.classification] == [(ObjectClassification.CAR, 1.0)]
    assert found.shape.type == Shape.BOUNDING_BOX
    size, footprint = found.shape.dimensions, found.shape.footprint.points
    assert (size.x, size.y, size.z, len(footprint)) == (4.0, 2.0, 1.5, 0)
    kinematics = found.kinematics
    pose = kinematics.pose_with_covariance.pose
    assert (pose.position.x, pose.position.y, pose.position.z) == (20.0, 0.0, 0.75)
    assert (pose.orientation.z, pose.orientation.w) == pytest.approx((np.sqrt(0.5), np.sqrt(0.5)))
    assert kinematics.has_position_covariance
    covariance = np.array(kinematics.pose_with_covariance.covariance).reshape(6, 6)
    np.testing.assert_allclose(covariance, np.diag([2.5**2, 0.5**2, 0.3**2, 0, 0, 0.2**2]), atol=1e-9)
    assert kinematics.orientation_availability == DetectedObjectKinematics.AVAILABLE
    assert kinematics.has_twist and kinematics.has_twist_covariance
    linear = kinematics.twist_with_covariance.twist.linear
    assert (linear.x, linear.y, linear.z) == pytest.approx((3.0, 0.0, 0.0))
    twist = np.array(kinematics.twist_with_covariance.covariance).reshape(6, 6)
    np.testing.assert_allclose(twist, np.diag([4.0, 4.0, 0, 0, 0, 0]), atol=1e-9)


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_labels(name):
    (found,) = translated(boxes_at(0, (20.0, 0.0), name=name)).objects
    expected = name.upper() if hasattr(ObjectClassification, name.upper()) else "UNKNOWN"
    assert found.classification[0].label == getattr(ObjectClassification, expected)
    without_front = name in ("barrier", "traffic_cone")
    assert (found.kinematics.orientation_availability == DetectedObjectKinematics.UNAVAILABLE) == without_front


def test_errors_that_the_weights_tell_go_before_the_parameters():
    boxes, told = boxes_at(0, (20.0, 0.0)), Covariances(np.zeros((1, 6, 6)), np.zeros((1, 6, 6)))
    told.poses[0], told.velocities[0, :2, :2] = np.diag([9.0, 1.0, 0.25, 0.0, 0.0, 0.01]), np.diag([16.0, 16.0])
    message = detections_to_message(boxes, "base_link", covariances=told)
    kinematics = kinematics_to_message(boxes, "base_link", covariances=told)
    (found,) = detected_objects(message, kinematics, UNCERTAIN).objects
    place, motion = found.kinematics.pose_with_covariance, found.kinematics.twist_with_covariance
    np.testing.assert_allclose(np.reshape(place.covariance, (6, 6)), told.poses[0])
    np.testing.assert_allclose(np.reshape(motion.covariance, (6, 6)), told.velocities[0], atol=1e-12)


def test_covariances_differ_by_class():
    boxes = [boxes_at(0, (20.0, 0.0), name=name) for name in ("car", "bus")]
    spreads = [
        translated(entry, Uncertainty()).objects[0].kinematics.pose_with_covariance.covariance[0] for entry in boxes
    ]
    assert spreads[0] < spreads[1]


def test_a_velocity_that_nobody_knows():
    boxes = boxes_at(0, (20.0, 0.0))
    kinematics = kinematics_to_message(boxes, "base_link")
    kinematics.detections[0].velocity.twist.linear.x = np.nan
    (found,) = detected_objects(detections_to_message(boxes, "base_link"), kinematics, UNCERTAIN).objects
    assert not found.kinematics.has_twist and not found.kinematics.has_twist_covariance
    assert found.kinematics.twist_with_covariance.twist.linear.x == 0


def test_a_track_has_the_covariance_of_its_filter():
    """Facing left, so that the filter's x is the object's right-hand side: 9 along x is 9 across the object."""
    boxes = boxes_at(0, (20.0, 0.0), velocities=[(0.0, 3.0)], scores=0.5, yaw=np.pi / 2)
    (found,) = translated_tracks(tracks_of(boxes, np.diag([1.0, 2.0, 9.0, 5.0]))).objects
    assert bytes(found.object_id.uuid) == uuid5(RUN, "41").bytes
    assert found.existence_probability == 0.5
    assert found.classification[0].label == ObjectClassification.CAR
    assert found.shape.type == Shape.BOUNDING_BOX and found.shape.dimensions.x == 4.0
    kinematics = found.kinematics
    assert kinematics.pose_with_covariance.pose.position.x == 20.0
    pose = np.array(kinematics.pose_with_covariance.covariance).reshape(6, 6)
    np.testing.assert_allclose(pose, np.diag([1.0, 2.0, 0.3, 0, 0, 0.4]))
    assert kinematics.twist_with_covariance.twist.linear.x == pytest.approx(3.0)
    twist = np.array(kinematics.twist_with_covariance.covariance).reshape(6, 6)
    np.testing.assert_allclose(twist, np.diag([5.0, 9.0, 0, 0, 0, 0]), atol=1e-9)
    assert kinematics.orientation_availability == TrackedObjectKinematics.AVAILABLE
    assert not kinematics.is_stationary
    assert np.count_nonzero(kinematics.acceleration_with_covariance.covariance) == 0


def test_object_ids_stay_and_differ():
    slow = boxes_at(0, (20.0, 0.0), (30.0, 0.0))
    first, again = (translated_tracks(tracks_of(replace(slow, stamp_ns=stamp), np.eye(4))).objects for stamp in (0, 1))
    ids = [[bytes(entry.object_id.uuid) for entry in objects] for objects in (first, again)]
    assert ids[0] == ids[1] and ids[0][0] != ids[0][1]
    assert all(entry.kinematics.is_stationary for entry in first)


def test_kinematics_of_other_boxes_are_refused():
    boxes = boxes_at(0, (20.0, 0.0))
    other = kinematics_to_message(replace(boxes, stamp_ns=1), "base_link")
    with pytest.raises(ValueError, match="expected the same header"):
        detected_objects(detections_to_message(boxes, "base_link"), other, UNCERTAIN)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"position_std_m": (0.5,)}, "position_std_m has 1 numbers, expected 10: barrier"),
        ({"yaw_std_rad": (-0.1,) * 10}, "yaw_std_rad is .*, expected numbers of zero or more"),
        ({"z_std_m": float("nan")}, "z_std_m is"),
    ],
)
def test_uncertainties_that_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Uncertainty(**wrong)
