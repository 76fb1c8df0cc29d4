"""A bag with the detector's results beside the bag of the drive: boxes by stamp, in the ego frame, with the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bevformer_ros.class_map import ClassMap
from bevformer_ros.config import RigConfig
from bevformer_ros.evaluation.attributes import with_guessed_attributes
from bevformer_ros.evaluation.protocol import EvaluationSample
from bevformer_ros.evaluation.tracking import IdentifiedBoxes, TrackedSample
from bevformer_ros.ros.bag.files import BagReader
from bevformer_ros.ros.bag.run_summary import Summary, summarise
from bevformer_ros.ros.bag.scene import transforms_of
from bevformer_ros.ros.conversions import detections_from_messages, joined, stamp_to_ns
from bevformer_ros.ros.messages import Detection3DArray, DetectionKinematicsArray, DetectorStatus
from bevformer_ros.ros.topics import OUTPUT, OUTPUT_STATUS, OUTPUT_TRACKS, TRUTH, BoxTopics
from bevformer_ros.ros.transform_tree import NoTransformError, TransformTree
from bevformer_ros.taxonomy import UnknownClassError
from bevformer_ros.types import SECOND_NS, Detections3D

# Half a period of nuScenes' cameras: a lidar sweep's image is nearer, the next one is not.
NEAREST_NS = SECOND_NS // 24


@dataclass(frozen=True)
class StampedBoxes:
    """Boxes as they lie in a bag. ids: (n,) as in the messages. velocity_known: (n,). visibility: (n,) 1 to 4, 0 where
    it is not known."""

    frame_id: str
    boxes: Detections3D
    ids: tuple[str, ...]
    velocity_known: NDArray[np.bool_]
    visibility: NDArray[np.int64]


@dataclass(frozen=True)
class Evaluated:
    """samples: one for each stamp of the truth. missing: the tokens of those without a result, which count as empty.
    velocities: whether the results hold any."""

    samples: tuple[EvaluationSample, ...]
    missing: frozenset[str]
    velocities: bool


def read_boxes(bag: BagReader, names: BoxTopics, classes: ClassMap | None = None) -> dict[int, StampedBoxes]:
    """All boxes of a topic by their header stamp. classes: what those of the bag are called here, the same where None.

    What makes no sense is left out, and counted by the bag. Raises ValueError where the bag lacks the topic, where
    nothing on it makes sense, and for a class that is unknown.
    """
    extras: dict[int, DetectionKinematicsArray] = {}
    if names.kinematics in bag.topics:
        for _, message in bag.objects({names.kinematics: (DetectionKinematicsArray,)}):
            extras[stamp_to_ns(message.header.stamp)] = message
    found = {}
    for entry, message in bag.objects({names.boxes: (Detection3DArray,)}):
        try:
            stamped = _stamped(message, extras.get(stamp_to_ns(message.header.stamp)), classes)
        except UnknownClassError as error:
            raise ValueError(f"{bag.path}, {names.boxes}: {error}") from error
        except ValueError as error:
            bag.leave_out(entry.topic, entry.stamp_ns, str(error))
            continue
        found[stamped.boxes.stamp_ns] = stamped
    if not found and bag.unreadable[names.boxes]:
        raise ValueError(f"{bag.path} has no message of boxes on {names.boxes} that can be used")
    return found


def _stamped(
    message: Detection3DArray, extra: DetectionKinematicsArray | None, classes: ClassMap | None
) -> StampedBoxes:
    if classes is not None:
        _rename(message, extra, classes)
    boxes = detections_from_messages(message, extra)
    extras_of_boxes = [] if extra is None else extra.detections
    return StampedBoxes(
        message.header.frame_id,
        boxes,
        ids=tuple(box.id for box in message.detections),
        velocity_known=_velocity_known(boxes, extra),
        visibility=np.array([entry.visibility for entry in extras_of_boxes] or [0] * len(boxes), np.int64),
    )


def _rename(message: Detection3DArray, extra: DetectionKinematicsArray | None, classes: ClassMap) -> None:
    """Give every box its best hypothesis by our name; take away those that have none here, with their kinematics."""
    kept, rows = [], []
    for row, detection in enumerate(message.detections):
        if not detection.results:
            raise ValueError(f"detection {detection.id!r} has no hypothesis, expected a class and a score")
        best = max(detection.results, key=lambda result: result.hypothesis.score)
        name = classes.ours(best.hypothesis.class_id)
        if name is not None:
            best.hypothesis.class_id = name
            detection.results = [best]
            kept.append(detection)
            rows.append(row)
    if extra is not None:
        joined(message, extra)
        extra.detections = [extra.detections[row] for row in rows]
    message.detections = kept


def _velocity_known(boxes: Detections3D, extra: DetectionKinematicsArray | None) -> NDArray[np.bool_]:
    if extra is None:
        return np.zeros(len(boxes), np.bool_)
    return np.array([not np.isnan(entry.velocity.twist.linear.x) for entry in extra.detections], np.bool_)


def read_summary(bag: BagReader, sets_in: int | None = None) -> Summary:
    """Latencies and drops. sets_in: that were played; None for those of which the detector has said what became.
    Raises ValueError for a bag without the detector's status."""
    statuses: list[DetectorStatus] = [status for _, status in bag.objects({OUTPUT_STATUS: (DetectorStatus,)})]
    boxes = sum(len(message.detections) for _, message in bag.objects({OUTPUT.boxes: (Detection3DArray,)}))
    last = statuses[-1] if statuses else DetectorStatus()
    told = last.sets_processed + sum(entry.count for entry in last.sets_dropped)
    return summarise(statuses, told if sets_in is None else sets_in, boxes)


def nearest_stamp(stamps: NDArray[np.int64], stamp_ns: int) -> int | None:
    """The one nearest to a stamp, of those that belong to it; None where there is none."""
    if not len(stamps):
        return None
    nearest = int(stamps[np.argmin(np.abs(stamps - stamp_ns))])
    return nearest if abs(nearest - stamp_ns) <= NEAREST_NS else None


class NoPoseError(ValueError):
    """A drive's tf does not tell where something was."""


class EgoFrame:
    """Brings boxes of any frame and time of a drive into the ego's frame at another time."""

    def __init__(self, transforms: TransformTree, rig: RigConfig) -> None:
        self._transforms, self._rig = transforms, rig

    def boxes(self, stamped: StampedBoxes, ego_ns: int) -> Detections3D:
        """They stay where they were in the world. Raises NoPoseError where tf does not say where that is."""
        boxes = stamped.boxes
        if stamped.frame_id == self._rig.base_frame and boxes.stamp_ns == ego_ns:
            return boxes
        return boxes.transformed(self._look_up(self._rig.base_frame, ego_ns, stamped.frame_id, boxes.stamp_ns))

    def pose(self, stamp_ns: int) -> NDArray[np.float64]:
        """(4, 4) fixed frame from ego."""
        return self._look_up(self._rig.fixed_frame, stamp_ns, self._rig.base_frame, stamp_ns)

    def _look_up(self, target: str, target_ns: int, source: str, source_ns: int) -> NDArray[np.float64]:
        try:
            return self._transforms.look_up_through(target, target_ns, source, source_ns, self._rig.fixed_frame)
        except NoTransformError as error:
            raise NoPoseError(f"the drive's tf does not tell where {source} was at {source_ns}: {error}") from error


def evaluated(
    result: BagReader,
    drive: BagReader,
    rig: RigConfig,
    truth: BoxTopics = TRUTH,
    detections: BoxTopics = OUTPUT,
    classes: ClassMap | None = None,
) -> Evaluated:
    """Results against the truth in the drive's bag. Boxes without attributes get guessed ones; each truth stands
    against the result nearest in time, brought to where the ego was then."""
    found, ego = read_boxes(result, detections, classes), EgoFrame(transforms_of(drive), rig)
    stamps = np.array(sorted(found), np.int64)
    samples, missing = [], []
    for stamp_ns, true in read_boxes(drive, truth, classes).items():
        token, nearest = f"{drive.path}-{stamp_ns}", nearest_stamp(stamps, stamp_ns)
        try:
            boxes = Detections3D.empty(stamp_ns) if nearest is None else ego.boxes(found[nearest], stamp_ns)
            boxes, true_boxes = with_guessed_attributes(boxes), ego.boxes(true, stamp_ns)
        except NoPoseError as error:
            drive.leave_out(truth.boxes, stamp_ns, str(error))
            continue
        if nearest is None:
            missing.append(token)
        samples.append(EvaluationSample(token, boxes, true_boxes, true.velocity_known, true.ids, true.visibility))
    if drive.unreadable[truth.boxes] and not samples:
        raise ValueError(f"{drive.path} has no truth on {truth.boxes} that can be used")
    return Evaluated(tuple(samples), frozenset(missing), detections.kinematics in result.topics)


def tracked(
    result: BagReader,
    drive: BagReader,
    rig: RigConfig,
    truth: BoxTopics = TRUTH,
    topics: BoxTopics = OUTPUT_TRACKS,
    classes: ClassMap | None = None,
) -> list[TrackedSample]:
    """Tracks against the truth in the drive's bag, in the rig's fixed frame, at the stamps of the truth as evaluated()
    has it. Raises ValueError for results without tracks."""
    found, ego = _read_tracks(result, topics, classes), EgoFrame(transforms_of(drive), rig)
    stamps = np.array(sorted(found), np.int64)
    samples = []
    for stamp_ns, true in read_boxes(drive, truth, classes).items():
        tracks, nearest = IdentifiedBoxes(Detections3D.empty(stamp_ns), ()), nearest_stamp(stamps, stamp_ns)
        try:
            fixed_from_ego = ego.pose(stamp_ns)
            if nearest is not None:
                tracks = _in_fixed_frame(found[nearest], ego, stamp_ns, fixed_from_ego)
            true_boxes = _in_fixed_frame(true, ego, stamp_ns, fixed_from_ego)
        except NoPoseError as error:
            drive.leave_out(truth.boxes, stamp_ns, str(error))
            continue
        samples.append(TrackedSample(stamp_ns, tracks, true_boxes, fixed_from_ego[:3, 3]))
    return samples


def _read_tracks(bag: BagReader, topics: BoxTopics, classes: ClassMap | None) -> dict[int, StampedBoxes]:
    """read_boxes of a topic of which every box says whose it is."""
    if topics.boxes not in bag.topics:
        raise ValueError(f"{bag.path} has no {topics.boxes}; replay the drive with --tracking")
    found = read_boxes(bag, topics, classes)
    for stamp_ns, stamped in found.items():
        if "" in stamped.ids or len(set(stamped.ids)) < len(stamped.ids):
            raise ValueError(
                f"{bag.path} has no tracks on {topics.boxes}: at {stamp_ns} ids of its boxes are empty or there twice, "
                "expected one for each object; replay the drive with --tracking"
            )
    return found


def _in_fixed_frame(
    stamped: StampedBoxes, ego: EgoFrame, stamp_ns: int, fixed_from_ego: NDArray[np.float64]
) -> IdentifiedBoxes:
    return IdentifiedBoxes(ego.boxes(stamped, stamp_ns).transformed(fixed_from_ego), stamped.ids)
