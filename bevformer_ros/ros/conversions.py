"""Messages to our types and back: stamps, transforms, images, boxes. The only place that knows both layouts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bevformer_ros import geometry
from bevformer_ros.error_model import Covariances
from bevformer_ros.lens import PINHOLE, Lens
from bevformer_ros.ros.messages import (
    CameraInfo,
    CompressedImage,
    Detection3D,
    Detection3DArray,
    DetectionKinematics,
    DetectionKinematicsArray,
    Header,
    Image,
    LabelInfo,
    ObjectHypothesisWithPose,
    Point,
    Pose,
    Quaternion,
    Time,
    Transform,
    TransformStamped,
    Vector3,
    VisionClass,
    byte_array,
)
from bevformer_ros.taxonomy import ATTRIBUTE_ID, ATTRIBUTE_NAMES, CLASS_ID, CLASS_NAMES, NO_ATTRIBUTE, UnknownClassError
from bevformer_ros.tracking.tracks import POSITION, VELOCITY, Tracks3D
from bevformer_ros.types import SECOND_NS, Detections3D

_SAME_FRAME = np.eye(4)


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
    message.transform.rotation = quaternion_message(geometry.quaternion_xyzw(target_from_source))
    return message


def image_to_message(image: NDArray[np.uint8], header: Header) -> Image:
    """A BGR image (H, W, 3) as bgr8."""
    height, width = image.shape[:2]
    data = byte_array(np.ascontiguousarray(image).data)
    return Image(header=header, height=height, width=width, encoding="bgr8", step=3 * width, data=data)


def jpeg_to_message(data: bytes, header: Header) -> CompressedImage:
    return CompressedImage(header=header, format="bgr8; jpeg compressed bgr8", data=byte_array(data))


def camera_info(
    header: Header, shape: tuple[int, ...], intrinsics: NDArray[np.float64], lens: Lens = PINHOLE
) -> CameraInfo:
    """Calibration of an image of a shape (height, width, ...)."""
    info = CameraInfo(header=header, height=shape[0], width=shape[1], distortion_model=lens.model)
    info.d = list(lens.coefficients) or [0.0] * 5
    info.k = intrinsics.reshape(-1)
    info.r = np.eye(3).reshape(-1)
    info.p = np.column_stack([intrinsics, np.zeros(3)]).reshape(-1)
    return info


def detections_to_message(
    detections: Detections3D,
    frame_id: str,
    frame_from_boxes: NDArray[np.float64] = _SAME_FRAME,
    ids: Sequence[str] | None = None,
    covariances: Covariances | None = None,
) -> Detection3DArray:
    """Boxes as frame_id has them, with their full orientation; size.x is the length, y the width, z the height.

    frame_from_boxes: (4, 4), from the boxes' own frame. ids: of the objects, the same in all messages; empty strings
    where None. covariances: in the boxes' own frame; zeros, which stand for unknown, where None.
    """
    message = Detection3DArray(header=header_of(detections.stamp_ns, frame_id))
    if not len(detections):
        return message
    rotation = frame_from_boxes[:3, :3]
    centers = geometry.apply(frame_from_boxes, detections.centers)
    turns = geometry.box_quaternions(rotation, detections.yaws)
    spread = None if covariances is None else covariances.turned(rotation).poses
    for index in range(len(detections)):
        pose = Pose(position=point_message(centers[index]), orientation=quaternion_message(turns[index]))
        hypothesis = ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id = CLASS_NAMES[detections.labels[index]]
        hypothesis.hypothesis.score = float(detections.scores[index])
        hypothesis.pose.pose = pose
        if spread is not None:
            hypothesis.pose.covariance = spread[index].reshape(-1)
        detection = Detection3D(header=message.header, results=[hypothesis])
        detection.id = "" if ids is None else ids[index]
        detection.bbox.center = pose
        detection.bbox.size = vector_message(detections.sizes[index])
        message.detections.append(detection)
    return message


def kinematics_to_message(
    detections: Detections3D,
    frame_id: str,
    frame_from_boxes: NDArray[np.float64] = _SAME_FRAME,
    ids: Sequence[str] | None = None,
    covariances: Covariances | None = None,
) -> DetectionKinematicsArray:
    """What detections_to_message of the same arguments cannot carry, in the same order."""
    message = DetectionKinematicsArray(header=header_of(detections.stamp_ns, frame_id))
    rotation = frame_from_boxes[:3, :3]
    velocities = detections.velocities @ rotation[:, :2].T
    spread = None if covariances is None else covariances.turned(rotation).velocities
    for index, velocity in enumerate(velocities):
        attribute = int(detections.attributes[index])
        entry = DetectionKinematics(
            id="" if ids is None else ids[index],
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
        entry.velocity.twist.linear = entry.model_velocity = vector_message(velocity)
        if spread is not None:
            entry.velocity.covariance = spread[index].reshape(-1)
        message.detections.append(entry)
    return message


def label_info(header: Header, score_threshold: float) -> LabelInfo:
    """The names of the numbers in DetectionKinematics.class_id, and the score from which boxes are published on."""
    class_map = [VisionClass(class_id=number, class_name=name) for number, name in enumerate(CLASS_NAMES)]
    return LabelInfo(header=header, class_map=class_map, threshold=float(score_threshold))


def tracks_to_message(
    tracks: Tracks3D, frame_id: str, frame_from_tracks: NDArray[np.float64] = _SAME_FRAME
) -> Detection3DArray:
    """As detections_to_message, with the tracks' ids and the filter's covariance of x, y, z and yaw."""
    return detections_to_message(tracks.boxes, frame_id, frame_from_tracks, _ids(tracks), _covariances(tracks))


def track_kinematics_to_message(
    tracks: Tracks3D, frame_id: str, frame_from_tracks: NDArray[np.float64] = _SAME_FRAME
) -> DetectionKinematicsArray:
    """The filter's velocities with their covariances, and the model's beside them."""
    message = kinematics_to_message(tracks.boxes, frame_id, frame_from_tracks, _ids(tracks), _covariances(tracks))
    model_velocities = tracks.model_velocities @ frame_from_tracks[:3, :2].T
    for index, entry in enumerate(message.detections):
        entry.model_velocity = vector_message(model_velocities[index])
        entry.coasted_s = float(tracks.coasted_s[index])
    return message


def _ids(tracks: Tracks3D) -> list[str]:
    return [str(identity) for identity in tracks.ids]


def _covariances(tracks: Tracks3D) -> Covariances:
    poses, velocities = np.zeros((2, len(tracks), 6, 6))
    poses[:, :2, :2] = tracks.covariances[:, POSITION, POSITION]
    poses[:, 2, 2], poses[:, 5, 5] = tracks.z_variances, tracks.yaw_variances
    velocities[:, :2, :2] = tracks.covariances[:, VELOCITY, VELOCITY]
    return Covariances(poses, velocities)


def detections_from_messages(
    boxes: Detection3DArray, kinematics: DetectionKinematicsArray | None = None
) -> Detections3D:
    """The boxes in the frame of the header, whose z axis theirs is taken to be; kinematics belong to them by index.

    Without kinematics velocities are zero and attributes unknown. A velocity that is not known, and stands in its
    message as NaN, is zero too. Raises ValueError for a class that the taxonomy lacks, a box without a hypothesis, and
    kinematics of other boxes.
    """
    stamp_ns = stamp_to_ns(boxes.header.stamp)
    entries = boxes.detections
    if not entries:
        return Detections3D.empty(stamp_ns)
    hypotheses = [_best_hypothesis(entry) for entry in entries]
    if kinematics is None:
        matched = [DetectionKinematics()] * len(entries)
    else:
        matched = [extra for _, extra in joined(boxes, kinematics)]
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


def joined(
    boxes: Detection3DArray, kinematics: DetectionKinematicsArray
) -> list[tuple[Detection3D, DetectionKinematics]]:
    """Each box with what is said about it, by index. Raises ValueError for messages about different boxes."""
    ids = [[entry.id for entry in message.detections] for message in (boxes, kinematics)]
    if ids[0] != ids[1] or boxes.header.stamp != kinematics.header.stamp:
        stamps = [stamp_to_ns(message.header.stamp) for message in (boxes, kinematics)]
        raise ValueError(
            f"{len(ids[0])} boxes of {stamps[0]} and kinematics of {len(ids[1])} of {stamps[1]} do not belong "
            "together; expected the same header, and the same objects in the same order"
        )
    return list(zip(boxes.detections, kinematics.detections, strict=True))


def point_message(values: NDArray[np.float64]) -> Point:
    return Point(x=float(values[0]), y=float(values[1]), z=float(values[2]))


def vector_message(values: NDArray[np.float64]) -> Vector3:
    return Vector3(x=float(values[0]), y=float(values[1]), z=float(values[2]))


def quaternion_message(values: NDArray[np.float64]) -> Quaternion:
    """Of x, y, z, w."""
    return Quaternion(x=float(values[0]), y=float(values[1]), z=float(values[2]), w=float(values[3]))


def yaw_of_quaternion(rotation: Quaternion) -> float:
    return geometry.yaw_of(geometry.transform((0, 0, 0), (rotation.x, rotation.y, rotation.z, rotation.w)))


def _best_hypothesis(detection: Detection3D) -> Any:
    if not detection.results:
        raise ValueError(f"detection {detection.id!r} has no hypothesis, expected a class and a score")
    return max((result.hypothesis for result in detection.results), key=lambda hypothesis: hypothesis.score)


def _class_id(name: str) -> int:
    if name not in CLASS_ID:
        raise UnknownClassError(f"class {name!r} is not one of {', '.join(CLASS_NAMES)}")
    return CLASS_ID[name]


def _xyz(value: Point | Vector3) -> tuple[float, float, float]:
    return value.x, value.y, value.z
