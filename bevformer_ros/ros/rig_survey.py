"""What cameras there are: gathered from messages, whether a bag or a live graph brings them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bevformer_ros.lens import Lens
from bevformer_ros.ros.calibration import camera_model
from bevformer_ros.ros.conversions import stamp_to_ns
from bevformer_ros.ros.image_decoding import image_size
from bevformer_ros.ros.messages import CameraInfo
from bevformer_ros.ros.transform_tree import NoTransformError, TransformTree
from bevformer_ros.types import SECOND_NS

LOGGER = logging.getLogger(__name__)

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
TRANSFORMS = "tf2_msgs/msg/TFMessage"
SURVEYED_TYPES = (IMAGE, COMPRESSED_IMAGE, CAMERA_INFO, TRANSFORMS)

_BASE_FRAMES = ("base_link", "base_footprint", "ego_vehicle")  # REP-105, and CARLA's bridge
_GROUND_FRAME = "base_footprint"  # REP-120
_NO_PICTURE = ("16UC1", "mono16", "32FC1", "compressedDepth")
_GREY = ("mono8", "8UC1")


@dataclass(frozen=True)
class FoundCamera:
    """size: width, height of its images. intrinsics: (3, 3) of them, and the lens before them. base_from_camera:
    (4, 4), of the optical frame. stamps_ns: of its images, as they came."""

    name: str
    image_topic: str
    camera_info_topic: str
    compressed: bool
    rectified: bool
    size: tuple[int, int]
    intrinsics: NDArray[np.float64]
    lens: Lens
    base_from_camera: NDArray[np.float64]
    stamps_ns: tuple[int, ...]


@dataclass(frozen=True)
class Survey:
    """ground: z of the road in the base frame, where tf has a frame for it. left_out: why topics, or some of their
    messages, are not used."""

    cameras: tuple[FoundCamera, ...]
    base_frame: str
    fixed_frame: str
    ground: float | None
    left_out: tuple[str, ...]


@dataclass
class _ImageTopic:
    compressed: bool
    encoding: str
    frame_id: str
    size: tuple[int, int]
    stamps_ns: list[int] = field(default_factory=list)


class RigSurvey:
    """`note` every message of the types that matter, in the order in which they come; then ask for the `survey`.

    A bad image or CameraInfo is counted, and passed over where the topic has a better one.
    """

    def __init__(self) -> None:
        self._images: dict[str, _ImageTopic] = {}
        self._infos: dict[str, CameraInfo] = {}
        self._left_out: dict[str, str] = {}
        self._bad: Counter[str] = Counter()
        self._first_reasons: dict[str, str] = {}
        self._transforms = TransformTree()

    def note(self, topic: str, type_name: str, message: Any) -> None:
        if type_name == CAMERA_INFO:
            self._note_info(topic, message)
        elif type_name == TRANSFORMS:
            add = self._transforms.add_static if topic.endswith("tf_static") else self._transforms.add
            for transform in message.transforms:
                add(transform)
        elif topic not in self._left_out:
            self._note_image(topic, type_name == COMPRESSED_IMAGE, message)

    def _note_info(self, topic: str, info: CameraInfo) -> None:
        if not _is_calibrated(info):
            self._pass_over(topic, info, "its K is zero or not finite; calibrate the camera")
        if topic not in self._infos or not _is_calibrated(self._infos[topic]):
            self._infos[topic] = info

    def _note_image(self, topic: str, compressed: bool, message: Any) -> None:
        encoding = message.format if compressed else message.encoding
        if any(word in encoding for word in _NO_PICTURE):
            self._left_out[topic] = f"{encoding} is no picture"
            return
        try:
            size = image_size(message)
        except ValueError as error:
            self._pass_over(topic, message, str(error))
            return
        if topic not in self._images:
            self._images[topic] = _ImageTopic(compressed, encoding, message.header.frame_id.removeprefix("/"), size)
        self._images[topic].stamps_ns.append(stamp_to_ns(message.header.stamp))

    def _pass_over(self, topic: str, message: Any, reason: str) -> None:
        if topic not in self._bad:
            self._first_reasons[topic] = reason
            seconds = stamp_to_ns(message.header.stamp) / SECOND_NS
            LOGGER.warning("a message on %s of stamp %.3f, and any like it, is left out: %s", topic, seconds, reason)
        self._bad[topic] += 1

    def survey(self, base_frame: str = "", fixed_frame: str = "") -> Survey:
        """base_frame, fixed_frame: empty to find them. Raises ValueError where there are no cameras, or no frame in
        which they move."""
        left_out = {
            topic: f"messages that could not be used: {count} ({self._first_reasons[topic]})"
            for topic, count in self._bad.items()
        }
        left_out.update(self._left_out)
        chosen = self._one_topic_per_camera(left_out)
        placed = {topic: info for topic, info in chosen.items() if self._is_placed(topic, left_out)}
        if not placed:
            raise _no_camera(left_out)
        base = base_frame or self._base_of([self._images[topic].frame_id for topic in placed])
        fixed = fixed_frame or self._fixed_above(base)
        names = _names(list(placed))
        cameras = []
        for topic, info_topic in placed.items():
            try:
                cameras.append(self._camera(names[topic], topic, info_topic, base))
            except (ValueError, NoTransformError) as error:
                left_out[topic] = str(error)
        if not cameras:
            raise _no_camera(left_out)
        ground = self._ground(base, cameras[0].stamps_ns[0])
        why = tuple(f"{topic}: {reason}" for topic, reason in left_out.items())
        return Survey(tuple(cameras), base, fixed, ground, why)

    def _one_topic_per_camera(self, left_out: dict[str, str]) -> dict[str, str]:
        """Image topic to CameraInfo topic. Of several of one camera that which is nearest to the sensor: undistorting
        and scaling once is better than twice."""
        by_info: dict[str, list[str]] = {}
        for topic, entry in self._images.items():
            info_topic = self._info_of(topic, entry.frame_id)
            if info_topic is None:
                left_out[topic] = f"no CameraInfo on {_namespace(topic)}/camera_info, or with its frame_id"
            else:
                by_info.setdefault(info_topic, []).append(topic)
        chosen = {}
        for info_topic, topics in by_info.items():
            best, *others = sorted(topics, key=lambda topic: (*self._distance_from_sensor(topic), topic))
            chosen[best] = info_topic
            left_out.update((other, f"the same camera as {best}") for other in others)
        return chosen

    def _distance_from_sensor(self, topic: str) -> tuple[bool, bool, bool]:
        entry = self._images[topic]
        return _is_rectified(topic), entry.encoding in _GREY, entry.compressed

    def _info_of(self, topic: str, frame_id: str) -> str | None:
        beside = f"{_namespace(topic)}/camera_info"
        if beside in self._infos:
            return beside
        of_frame = [name for name, info in self._infos.items() if info.header.frame_id.removeprefix("/") == frame_id]
        return of_frame[0] if len(of_frame) == 1 else None

    def _is_placed(self, topic: str, left_out: dict[str, str]) -> bool:
        frame = self._images[topic].frame_id
        if frame in self._transforms.frames():
            return True
        left_out[topic] = f"tf has no frame {frame!r}, which is the frame_id of its images"
        return False

    def _base_of(self, camera_frames: Sequence[str]) -> str:
        chains = [[name for name, _ in self._transforms.ancestors(frame)] for frame in camera_frames]
        common = [name for name in chains[0] if all(name in chain for chain in chains)]
        for name in _BASE_FRAMES:
            if name in common:
                return name
        for name in common:  # the highest that does not move against the cameras
            above = self._transforms.ancestors(name)
            if above and above[0][1]:
                return name
        raise ValueError(
            f"tf has no frame above {', '.join(camera_frames)} that moves in another; publish odometry as tf, or name "
            "the frames: --base-frame, --fixed-frame"
        )

    def _fixed_above(self, base_frame: str) -> str:
        above = self._transforms.ancestors(base_frame)
        if not above:
            raise ValueError(
                f"tf has no frame above {base_frame}, in which the car moves (odom, map); publish odometry as tf, or "
                "name the frame that will be there: --fixed-frame"
            )
        return next((name for name, moves in above if moves), above[-1][0])

    def _camera(self, name: str, topic: str, info_topic: str, base_frame: str) -> FoundCamera:
        entry, rectified = self._images[topic], _is_rectified(topic)
        intrinsics, lens = camera_model(self._infos[info_topic], entry.size, rectified)
        middle = sorted(entry.stamps_ns)[len(entry.stamps_ns) // 2]
        return FoundCamera(
            name,
            topic,
            info_topic,
            entry.compressed,
            rectified,
            entry.size,
            intrinsics,
            lens,
            self._transforms.look_up(base_frame, entry.frame_id, middle),
            tuple(entry.stamps_ns),
        )

    def _ground(self, base_frame: str, stamp_ns: int) -> float | None:
        try:
            return float(self._transforms.look_up(base_frame, _GROUND_FRAME, stamp_ns)[2, 3])
        except NoTransformError:
            return None


def _no_camera(left_out: dict[str, str]) -> ValueError:
    reasons = "; ".join(f"{topic}: {reason}" for topic, reason in left_out.items())
    return ValueError(f"found no camera to make a rig of: {reasons or 'no images at all'}")


def _is_calibrated(info: CameraInfo) -> bool:
    return bool(np.any(info.k)) and bool(np.isfinite(info.k).all())


def _namespace(image_topic: str) -> str:
    """/car/front of /car/front/image_raw and of /car/front/image_raw/compressed."""
    return image_topic.removesuffix("/compressed").rpartition("/")[0]


def _is_rectified(image_topic: str) -> bool:
    return "rect" in image_topic.removesuffix("/compressed").rpartition("/")[2]


def _names(image_topics: Sequence[str]) -> dict[str, str]:
    """The last part of each topic's namespace, or as many of its parts as tell the cameras apart."""
    parts = {topic: _namespace(topic).strip("/").split("/") for topic in image_topics}
    for count in range(1, max(map(len, parts.values())) + 1):
        names = {topic: "_".join(words[-count:]) or "camera" for topic, words in parts.items()}
        if len(set(names.values())) == len(names):
            break
    return names
