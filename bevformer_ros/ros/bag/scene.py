"""Looking into a bag at one moment: the surround frame that its topics make up, and boxes recorded in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bevformer_ros import geometry
from bevformer_ros.config import CameraConfig, RigConfig
from bevformer_ros.ros.bag.files import BagReader
from bevformer_ros.ros.calibration import camera_model, check_parts
from bevformer_ros.ros.conversions import detections_from_messages, stamp_to_ns
from bevformer_ros.ros.ego_motion import EgoMotion, SetPoses, StampedFrame
from bevformer_ros.ros.image_decoding import decode_image, image_size
from bevformer_ros.ros.messages import (
    CameraInfo,
    CompressedImage,
    Detection3DArray,
    DetectionKinematicsArray,
    Image,
    TFMessage,
)
from bevformer_ros.ros.node.settings import Settings
from bevformer_ros.ros.topics import BoxTopics
from bevformer_ros.ros.transform_tree import TransformTree
from bevformer_ros.types import MILLISECOND_NS, SECOND_NS, CameraImage, Detections3D, SurroundFrame

_IMAGES = (Image, CompressedImage)
_SEARCH_NS = SECOND_NS  # how far from a stamp its messages may have been recorded
_TOLERANCE_NS = round(Settings.sync_tolerance_ms * MILLISECOND_NS)


def transforms_of(bag: BagReader) -> TransformTree:
    """All of a bag's tf, for lookups at any of its times."""
    tree = TransformTree()
    present = [topic for topic in ("/tf", "/tf_static") if topic in bag.topics]
    for entry, message in bag.objects(dict.fromkeys(present, (TFMessage,))):
        add = tree.add_static if entry.topic == "/tf_static" else tree.add
        for transform in message.transforms:
            add(transform)
    return tree


class BagScene:
    """All of a bag's tf in memory, its images read where asked for.

    Raises ValueError for a bag without the rig's topics or without /tf.
    """

    def __init__(self, bag: BagReader, rig: RigConfig) -> None:
        wanted = ["/tf", *(camera.image_topic for camera in rig.cameras)]
        missing = [topic for topic in wanted if topic not in bag.topics]
        if missing:
            raise ValueError(f"{bag.path} has no {', '.join(missing)}; it has {', '.join(sorted(bag.topics))}")
        self._bag, self._rig = bag, rig
        self.transforms = transforms_of(bag)

    def stamps(self, topic: str, source: BagReader | None = None) -> list[int]:
        """Header stamps of all messages of boxes or images on a topic, from another bag where one is given; none where
        that lacks it."""
        bag = source or self._bag
        found = bag.objects({topic: (Detection3DArray, *_IMAGES)}) if topic in bag.topics else ()
        return [stamp_to_ns(message.header.stamp) for _, message in found]

    def image_frames(self) -> dict[str, str]:
        """For each camera the tf frame of its first image."""
        first = {
            camera.name: next(self._bag.objects({camera.image_topic: _IMAGES}), None) for camera in self._rig.cameras
        }
        return {name: entry[1].header.frame_id for name, entry in first.items() if entry is not None}

    def reference_stamp(self, near_ns: int) -> int:
        """Stamp of the reference camera's image that is nearest to a time. Raises ValueError where there is none."""
        (camera,) = (camera for camera in self._rig.cameras if camera.name == self._rig.reference_camera)
        stamps = self.stamps(camera.image_topic)
        if not stamps:
            raise ValueError(f"{self._bag.path} has no image on {camera.image_topic}")
        return min(stamps, key=lambda stamp: abs(stamp - near_ns))

    def frame(self, stamp_ns: int) -> SurroundFrame:
        """The images nearest to their expected stamps about a reference stamp, None for a camera without any within the
        tolerance: as node and replay choose them by default.

        Raises NoTransformError where the bag's poses do not reach, and ValueError where no camera has a usable image.
        """
        return self.frame_and_absences(stamp_ns)[0]

    def frame_and_absences(self, stamp_ns: int) -> tuple[SurroundFrame, dict[str, str]]:
        """frame(), and for each camera that it lacks the reason."""
        images = [self._image(camera, stamp_ns + _offset_ns(camera)) for camera in self._rig.cameras]
        exposures = [
            None if image is None else StampedFrame(image.header.frame_id, stamp_to_ns(image.header.stamp))
            for image in images
        ]
        poses = self._poses(stamp_ns, exposures, "")
        absent: dict[str, str] = {}
        cameras = tuple(
            self._usable_image(config, image, pose, absent)
            for config, image, pose in zip(self._rig.cameras, images, poses.camera_from_bev, strict=True)
        )
        if not any(cameras):
            reasons = "; ".join(f"{name}: {reason}" for name, reason in absent.items())
            raise ValueError(f"{self._bag.path} has no usable image about {stamp_ns}: {reasons}")
        return SurroundFrame(stamp_ns, cameras, poses.world_from_bev, scene=self._bag.path.name), absent

    def boxes(self, topics: BoxTopics, stamp_ns: int, source: BagReader | None = None) -> Detections3D:
        """The boxes of exactly this header stamp in the BEV frame, from another bag where one is given.

        Raises ValueError where there are none.
        """
        bag = source or self._bag
        message = self._at(bag, topics.boxes, Detection3DArray, stamp_ns)
        if message is None:
            raise ValueError(f"{bag.path} has no boxes of stamp {stamp_ns} on {topics.boxes}")
        kinematics = None
        if topics.kinematics in bag.topics:
            kinematics = self._at(bag, topics.kinematics, DetectionKinematicsArray, stamp_ns)
        boxes = detections_from_messages(message, kinematics)
        frame_from_bev = self._poses(stamp_ns, [], message.header.frame_id).output_from_bev
        return boxes.transformed(geometry.invert(frame_from_bev))

    def base_from_bev(self, stamp_ns: int) -> NDArray[np.float64]:
        """(4, 4) at a stamp. Raises NoTransformError where the bag's poses do not reach."""
        return self._poses(stamp_ns, [], "").output_from_bev

    def _poses(self, stamp_ns: int, exposures: list[StampedFrame | None], output_frame: str) -> SetPoses:
        return EgoMotion(self.transforms, self._rig, output_frame).poses(stamp_ns, exposures)

    def _image(self, camera: CameraConfig, expected_ns: int) -> Any:
        image = self._nearest(camera.image_topic, _IMAGES, expected_ns)
        if image is None:
            return None
        age_ns = expected_ns - stamp_to_ns(image.header.stamp)
        return image if -_TOLERANCE_NS <= age_ns <= max(_TOLERANCE_NS, camera.repeat_ms * MILLISECOND_NS) else None

    def _nearest(self, topic: str, kinds: tuple[type, ...], stamp_ns: int) -> Any:
        entries = self._bag.objects({topic: kinds}, stamp_ns - _SEARCH_NS, stamp_ns + _SEARCH_NS)
        return min(
            (message for _, message in entries),
            key=lambda message: abs(stamp_to_ns(message.header.stamp) - stamp_ns),
            default=None,
        )

    def _at(self, bag: BagReader, topic: str, kind: type, stamp_ns: int) -> Any:
        """Recorded somewhat later than its stamp, which another clock may have given: so the whole bag is searched."""
        for _, message in bag.objects({topic: (kind,)}):
            if stamp_to_ns(message.header.stamp) == stamp_ns:
                return message
        return None

    def _usable_image(
        self, config: CameraConfig, message: Any, camera_from_bev: NDArray[np.float64] | None, absent: dict[str, str]
    ) -> CameraImage | None:
        """None, with the reason among those of `absent`, where there is none or it or its calibration is bad."""
        if message is None or camera_from_bev is None:
            absent[config.name] = "no image near its expected stamp; is exposure_offset_ms right?"
            return None
        try:
            return self._camera_image(config, message, camera_from_bev)
        except ValueError as error:
            self._bag.leave_out(config.image_topic, stamp_to_ns(message.header.stamp), str(error))
            absent[config.name] = str(error)
            return None

    def _camera_image(self, config: CameraConfig, message: Any, camera_from_bev: NDArray[np.float64]) -> CameraImage:
        stamp_ns = stamp_to_ns(message.header.stamp)
        info: CameraInfo | None = self._nearest(config.camera_info_topic, (CameraInfo,), stamp_ns)
        if info is None:
            raise ValueError(f"{self._bag.path} has no CameraInfo near {stamp_ns} on {config.camera_info_topic}")
        size = image_size(message)
        check_parts(config, size)
        intrinsics, lens = camera_model(info, size, config.rectified)
        image = decode_image(message)
        angle, masks = config.field_of_view_deg, config.masks
        camera = CameraImage(config.name, stamp_ns, image, intrinsics, camera_from_bev, lens, angle, masks)
        return camera.cropped(config.crop)


def scene_at(
    path: Path, rig: RigConfig, topics: BoxTopics, seconds: float | None, results: Path | None = None
) -> tuple[SurroundFrame, Detections3D | None, NDArray[np.float64]]:
    """The frame, the boxes of a topic and bev_from_base (4, 4) nearest to `seconds` after the bag's start; its middle
    where None. In a bag without such boxes it is the reference camera's image that is nearest, and there are None.

    results: the bag that holds the boxes, where it is another one.
    """
    with BagReader(path) as bag, BagReader(results or path) as boxed:
        scene = BagScene(bag, rig)
        wanted = round((bag.start_ns + bag.end_ns) / 2 if seconds is None else bag.start_ns + seconds * SECOND_NS)
        stamps = scene.stamps(topics.boxes, boxed)
        stamp_ns = min(stamps, key=lambda stamp: abs(stamp - wanted)) if stamps else scene.reference_stamp(wanted)
        boxes = scene.boxes(topics, stamp_ns, boxed) if stamps else None
        return scene.frame(stamp_ns), boxes, geometry.invert(scene.base_from_bev(stamp_ns))


def _offset_ns(camera: CameraConfig) -> int:
    return round(camera.exposure_offset_ms * MILLISECOND_NS)
