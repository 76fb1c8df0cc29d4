"""Messages to our types and back: stamps, transforms, images, boxes. The only place that knows both layouts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bevformer_ros import geometry
from bevformer_ros.ros.messages import (
    CameraInfo,
    CompressedImage,
    Detection3D,
    Detection3DArray,
    DetectionKinematics,
    DetectionKinematicsArray,
    Header,
    Image,
    ObjectHypothesisWithPose,
    Point,
    Pose,
    Quaternion,
    Time,
    Transform,
    TransformStamped,
    Vector3,
    byte_array,
)
from bevformer_ros.taxonomy import ATTRIBUTE_ID, ATTRIBUTE_NAMES, CLASS_ID, CLASS_NAMES, NO_ATTRIBUTE
from bevformer_ros.tracking.tracks import POSITION, VELOCITY, Tracks3D
from bevformer_ros.types import SECOND_NS, Detections3D

COVARIANCE_UNKNOWN = -1.0


def stamp_to_ns(stamp: Time) -> int:
    return stamp.sec * SECOND_NS + stamp.nanosec


def stamp_from_ns(nanoseconds: int) -> Time:
    seconds, remainder = divmod(nanoseconds, SECOND_NS)
    return Time(sec=seconds, nanosec=remainder)


def header_of(stamp_ns: int, frame_id: str) -> Header:
    return Header(stamp=stamp_from_ns(stamp_ns), frame_id=frame_id)


def transform_from_message(message: Transform) -> NDArray[np.float64]:
    """(4, 4) target_from_source, where tf's header.frame_id is the target and child_frame_id the source."""
    translation, rotation = message.translation, message.rotation
    return geometry.transform(
        (translation.x, translation.y, translation.z), (rotation.x, rotation.y, rotation.z, rotation.w)
    )


def transform_to_message(
    target_from_source: NDArray[np.float64], target: str, source: str, stamp_ns: int
) -> TransformStamped:
    message = TransformStamped(header=header_of(stamp_ns, target), child_frame_id=source)
    message.transform.translation = vector_message(target_from_source[:3, 3])
    message.transform.rotation = _quaternion(geometry.quaternion_xyzw(target_from_source))
    return message


def image_to_message(image: NDArray[np.uint8], header: Header) -> Image:
    """A BGR image (H, W, 3) as bgr8."""
    height, width = image.shape[:2]
    data = byte_array(np.ascontiguousarray(image).data)
    return Image(header=header, height=height, width=width, encoding="bgr8", step=3 * width, data=data)


def jpeg_to_message(data: bytes, header: Header) -> CompressedImage:
    return CompressedImage(header=header, format="bgr8; jpeg compressed bgr8", data=byte_array(data))


def camera_info(header: Header, shape: tuple[int, ...], intrinsics: NDArray[np.float64]) -> CameraInfo:
    """Calibration of an undistorted image of a shape (height, width, ...)."""
    info = CameraInfo(header=header, height=shape[0], width=shape[1], distortion_model="plumb_bob")
    info.d = [0.0] * 5
    info.k = intrinsics.reshape(-1)
    info.r = np.eye(3).reshape(-1)
    info.p = np.column_stack([intrinsics, np.zeros(3)]).reshape(-1)
    return info


def detection_ids(detections: Detections3D) -> list[str]:
    """One id per box, shared by every message made from the same detections; it says nothing about tracks."""
    return [f"{detections.stamp_ns}-{index}" for index in range(len(detections))]


def detections_to_message(detections: Detections3D, frame_id: str) -> Detection3DArray:
    """Boxes of the frame frame_id at their stamp; size.x is the length, y the width, z the height."""
    return _boxes_to_message(detections, detection_ids(detections), frame_id)


def tracks_to_message(tracks: Tracks3D, frame_id: str) -> Detection3DArray:
    """As detections_to_message; the pose of the hypothesis has the filter's covariance of x, y, z and yaw."""
    message = _boxes_to_message(tracks.boxes, track_ids(tracks), frame_id)
    for index, detection in enumerate(message.detections):
        covariance = np.zeros((6, 6))
        covariance[:2, :2] = tracks.covariances[index, POSITION, POSITION]
        covariance[2, 2], covariance[5, 5] = tracks.z_variances[index], tracks.yaw_variances[index]
        detection.results[0].pose.covariance = covariance.reshape(-1)
    return message


def track_ids(tracks: Tracks3D) -> list[str]:
    return [str(identity) for identity in tracks.ids]


def _boxes_to_message(detections: Detections3D, ids: list[str], frame_id: str) -> Detection3DArray:
    message = Detection3DArray(header=header_of(detections.stamp_ns, frame_id))
    for index, identity in enumerate(ids):
        pose = Pose(
            position=point_message(detections.centers[index]), orientation=quaternion_of_yaw(detections.yaws[index])
        )
        hypothesis = ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id = CLASS_NAMES[detections.labels[index]]
        hypothesis.hypothesis.score = float(detections.scores[index])
        hypothesis.pose.pose = pose
        detection = Detection3D(header=message.header, id=identity, results=[hypothesis])
        detection.bbox.center = pose
        detection.bbox.size = vector_message(detections.sizes[index])
        message.detections.append(detection)
    return message


def kinematics_to_message(detections: Detections3D, frame_id: str) -> DetectionKinematicsArray:
    return _kinematics_to_message(detections, detection_ids(detections), detections.velocities, frame_id)


def track_kinematics_to_message(tracks: Tracks3D, frame_id: str) -> DetectionKinematicsArray:
    """The filter's velocities with their covariances, and the model's beside them."""
    message = _kinematics_to_message(tracks.boxes, track_ids(tracks), tracks.model_velocities, frame_id)
    for index, entry in enumerate(message.detections):
        covariance = np.zeros((6, 6))
        covariance[:2, :2] = tracks.covariances[index, VELOCITY, VELOCITY]
        entry.velocity.covariance = covariance.reshape(-1)
        entry.coasted_s = float(tracks.coasted_s[index])
    return message


def _kinematics_to_message(
    detections: Detections3D, ids: list[str], model_velocities: NDArray[np.float64], frame_id: str
) -> DetectionKinematicsArray:
    message = DetectionKinematicsArray(header=header_of(detections.stamp_ns, frame_id))
    for index, identity in enumerate(ids):
        attribute = int(detections.attributes[index])
        entry = DetectionKinematics(
            id=identity,
            class_id=int(detections.labels[index]),
            class_name=CLASS_NAMES[detections.labels[index]],
            score=float(detections.scores[index]),
            attribute="" if attribute == NO_ATTRIBUTE else ATTRIBUTE_NAMES[attribute],
            query_source=int(
                DetectionKinematics.QUERY_PROPOSAL
                if detections.from_proposal[index]
                else DetectionKinematics.QUERY_LEARNED
            ),
        )
        entry.velocity.twist.linear = _flat_vector(detections.velocities[index])
        entry.model_velocity = _flat_vector(model_velocities[index])
        entry.velocity.covariance[0] = COVARIANCE_UNKNOWN
        message.detections.append(entry)
    return message


def detections_from_messages(
    boxes: Detection3DArray, kinematics: DetectionKinematicsArray | None = None
) -> Detections3D:
    """The boxes in the frame of the header; without kinematics velocities are zero and attributes unknown. A velocity
    that is not known, and stands in its message as NaN, is zero too.

    Raises ValueError for a class that the taxonomy lacks, a box without a hypothesis, and kinematics of other boxes.
    """
    stamp_ns = stamp_to_ns(boxes.header.stamp)
    entries = boxes.detections
    if not entries:
        return Detections3D.empty(stamp_ns)
    hypotheses = [_best_hypothesis(entry) for entry in entries]
    if kinematics is None:
        matched = [DetectionKinematics()] * len(entries)
    else:
        by_id = {entry.id: entry for entry in kinematics.detections}
        matched = [_matching(by_id, entry.id) for entry in entries]
    return Detections3D(
        stamp_ns=stamp_ns,
        centers=np.array([_xyz(entry.bbox.center.position) for entry in entries]),
        sizes=np.array([_xyz(entry.bbox.size) for entry in entries]),
        yaws=np.array([yaw_of_quaternion(entry.bbox.center.orientation) for entry in entries]),
        velocities=np.nan_to_num([_xyz(extra.velocity.twist.linear)[:2] for extra in matched]),
        scores=np.array([hypothesis.score for hypothesis in hypotheses]),
        labels=np.array([_class_id(hypothesis.class_id) for hypothesis in hypotheses], np.int64),
        attributes=np.array([ATTRIBUTE_ID.get(extra.attribute, NO_ATTRIBUTE) for extra in matched], np.int64),
        from_proposal=np.array([extra.query_source == DetectionKinematics.QUERY_PROPOSAL for extra in matched]),
    )


def point_message(values: NDArray[np.float64]) -> Point:
    return Point(x=float(values[0]), y=float(values[1]), z=float(values[2]))


def vector_message(values: NDArray[np.float64]) -> Vector3:
    return Vector3(x=float(values[0]), y=float(values[1]), z=float(values[2]))


def _flat_vector(values: NDArray[np.float64]) -> Vector3:
    return Vector3(x=float(values[0]), y=float(values[1]))


def quaternion_of_yaw(yaw: float) -> Quaternion:
    return Quaternion(z=float(np.sin(yaw / 2)), w=float(np.cos(yaw / 2)))


def yaw_of_quaternion(rotation: Quaternion) -> float:
    return geometry.yaw_of(geometry.transform((0, 0, 0), (rotation.x, rotation.y, rotation.z, rotation.w)))


def _best_hypothesis(detection: Detection3D) -> Any:
    if not detection.results:
        raise ValueError(f"detection {detection.id!r} has no hypothesis, expected a class and a score")
    return max((result.hypothesis for result in detection.results), key=lambda hypothesis: hypothesis.score)


def _class_id(name: str) -> int:
    if name not in CLASS_ID:
        raise ValueError(f"class {name!r} is not one of {', '.join(CLASS_NAMES)}")
    return CLASS_ID[name]


def _matching(by_id: dict[str, DetectionKinematics], identity: str) -> DetectionKinematics:
    if identity not in by_id:
        raise ValueError(f"the kinematics hold no detection {identity!r}; do both messages have the same header?")
    return by_id[identity]


def _xyz(value: Point | Vector3) -> tuple[float, float, float]:
    return value.x, value.y, value.z


def _quaternion(values: NDArray[np.float64]) -> Quaternion:
    return Quaternion(x=float(values[0]), y=float(values[1]), z=float(values[2]), w=float(values[3]))
