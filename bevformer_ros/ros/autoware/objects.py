"""Detections and tracks as Autoware's perception messages."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, fields

import numpy as np
from autoware_perception_msgs.msg import (
    DetectedObject,
    DetectedObjectKinematics,
    DetectedObjects,
    ObjectClassification,
    Shape,
    TrackedObject,
    TrackedObjectKinematics,
    TrackedObjects,
)
from bevformer_ros.msg import DetectionKinematics, DetectionKinematicsArray
from geometry_msgs.msg import Pose, PoseWithCovariance, Twist, TwistWithCovariance, Vector3
from numpy.typing import NDArray
from unique_identifier_msgs.msg import UUID
from vision_msgs.msg import Detection3D, Detection3DArray

from bevformer_ros.ros.conversions import detections_from_messages, joined, yaw_of_quaternion
from bevformer_ros.taxonomy import CLASS_ID, CLASS_NAMES
from bevformer_ros.tracking.config import ClassMotions, TrackingConfig
from bevformer_ros.tracking.kalman import measurement_noise

# As Autoware's own detectors label the nuScenes classes; what has no label of its own is UNKNOWN.
LABELS = {
    "bicycle": ObjectClassification.BICYCLE,
    "bus": ObjectClassification.BUS,
    "car": ObjectClassification.CAR,
    "motorcycle": ObjectClassification.MOTORCYCLE,
    "pedestrian": ObjectClassification.PEDESTRIAN,
    "trailer": ObjectClassification.TRAILER,
    "truck": ObjectClassification.TRUCK,
}
WITHOUT_FRONT = ("barrier", "traffic_cone")


def _by_class(name: str) -> tuple[float, ...]:
    return tuple(ClassMotions().column(name).tolist())


@dataclass(frozen=True)
class Uncertainty:
    """How far detections may be off, one number for each class in the order of the taxonomy; the defaults are those of
    the tracker."""

    position_std_m: tuple[float, ...] = _by_class("position_std_m")
    """Across the line of sight."""
    depth_std_share: tuple[float, ...] = _by_class("depth_std_share")
    """What comes to it along the line of sight, as a share of the range."""
    velocity_std_mps: tuple[float, ...] = _by_class("velocity_std_mps")
    """In both directions."""
    yaw_std_rad: tuple[float, ...] = _by_class("yaw_std_rad")
    """Of the heading."""
    z_std_m: float = TrackingConfig.height_std_m
    """Of the height of the centre, for all classes."""

    def __post_init__(self) -> None:
        for entry in fields(self):
            values = np.atleast_1d(getattr(self, entry.name))
            if entry.name != "z_std_m" and len(values) != len(CLASS_NAMES):
                raise ValueError(
                    f"{entry.name} has {len(values)} numbers, expected {len(CLASS_NAMES)}: {', '.join(CLASS_NAMES)}"
                )
            if not (values >= 0).all():
                raise ValueError(f"{entry.name} is {values.tolist()}, expected numbers of zero or more")


def detected_objects(
    boxes: Detection3DArray, kinematics: DetectionKinematicsArray, uncertainty: Uncertainty
) -> DetectedObjects:
    """Detections in base_link. uncertainty: of boxes whose weights do not tell their errors. Raises ValueError for
    messages that do not belong together."""
    detections = detections_from_messages(boxes, kinematics)
    labels = detections.labels
    position, depth, speed, yaw = (
        np.array(values)[labels]
        for values in (
            uncertainty.position_std_m,
            uncertainty.depth_std_share,
            uncertainty.velocity_std_mps,
            uncertainty.yaw_std_rad,
        )
    )
    noises = measurement_noise(detections.centers[:, :2], np.zeros(2), position, depth, speed)
    message = DetectedObjects(header=boxes.header)
    for row, (box, extra) in enumerate(_pairs(boxes, kinematics)):
        pose_covariance = np.reshape(box.results[0].pose.covariance, (6, 6))
        velocity_covariance = np.reshape(extra.velocity.covariance, (6, 6))[:2, :2]
        if not pose_covariance.any():
            pose_covariance = np.diag([0.0, 0.0, uncertainty.z_std_m**2, 0.0, 0.0, yaw[row] ** 2])
            pose_covariance[:2, :2] = noises[row, :2, :2]
        if not velocity_covariance.any():
            velocity_covariance = noises[row, 2:, 2:]
        known = not np.isnan(extra.velocity.twist.linear.x)
        kinematic = DetectedObjectKinematics(
            pose_with_covariance=_pose(box.bbox.center, pose_covariance),
            has_position_covariance=True,
            orientation_availability=_orientation(extra.class_name),
            has_twist=known,
            has_twist_covariance=known,
        )
        if known:
            kinematic.twist_with_covariance = _twist(box.bbox.center, extra, velocity_covariance)
        message.objects.append(
            DetectedObject(
                existence_probability=extra.score,
                classification=[_classification(extra.class_name)],
                kinematics=kinematic,
                shape=_shape(box),
            )
        )
    return message


def tracked_objects(
    tracks: Detection3DArray, kinematics: DetectionKinematicsArray, run: uuid.UUID, stationary_below_mps: float
) -> TrackedObjects:
    """Tracks in base_link, with the filter's covariances. run: together with a track's id it makes the object's.

    Raises ValueError for messages that do not belong together.
    """
    message = TrackedObjects(header=tracks.header)
    for box, extra in _pairs(tracks, kinematics):
        velocity_covariance = np.array(extra.velocity.covariance).reshape(6, 6)[:2, :2]
        linear = extra.velocity.twist.linear
        message.objects.append(
            TrackedObject(
                object_id=UUID(uuid=np.frombuffer(uuid.uuid5(run, box.id).bytes, np.uint8)),
                existence_probability=extra.score,
                classification=[_classification(extra.class_name)],
                kinematics=TrackedObjectKinematics(
                    pose_with_covariance=_pose(box.bbox.center, np.array(box.results[0].pose.covariance).reshape(6, 6)),
                    twist_with_covariance=_twist(box.bbox.center, extra, velocity_covariance),
                    orientation_availability=_orientation(extra.class_name),
                    is_stationary=bool(np.hypot(linear.x, linear.y) < stationary_below_mps),
                ),
                shape=_shape(box),
            )
        )
    return message


def _pairs(
    boxes: Detection3DArray, kinematics: DetectionKinematicsArray
) -> list[tuple[Detection3D, DetectionKinematics]]:
    pairs = joined(boxes, kinematics)
    unknown = sorted({extra.class_name for _, extra in pairs} - set(CLASS_ID))
    if unknown:
        raise ValueError(f"class {unknown[0]!r} is not one of {', '.join(CLASS_NAMES)}")
    return pairs


def _classification(name: str) -> ObjectClassification:
    return ObjectClassification(label=LABELS.get(name, ObjectClassification.UNKNOWN), probability=1.0)


def _orientation(name: str) -> int:
    return int(DetectedObjectKinematics.UNAVAILABLE if name in WITHOUT_FRONT else DetectedObjectKinematics.AVAILABLE)


def _pose(pose: Pose, covariance: NDArray[np.float64]) -> PoseWithCovariance:
    return PoseWithCovariance(pose=pose, covariance=covariance.reshape(-1))


def _twist(pose: Pose, extra: DetectionKinematics, covariance: NDArray[np.float64]) -> TwistWithCovariance:
    """In the object's own axes, as Autoware has it. covariance: (2, 2) in the frame of the message."""
    yaw = yaw_of_quaternion(pose.orientation)
    object_from_frame = np.array([[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]])
    along, across = object_from_frame @ [extra.velocity.twist.linear.x, extra.velocity.twist.linear.y]
    full = np.zeros((6, 6))
    full[:2, :2] = object_from_frame @ covariance @ object_from_frame.T
    return TwistWithCovariance(twist=Twist(linear=Vector3(x=along, y=across)), covariance=full.reshape(-1))


def _shape(box: Detection3D) -> Shape:
    return Shape(type=Shape.BOUNDING_BOX, dimensions=box.bbox.size)
