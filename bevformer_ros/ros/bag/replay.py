"""One bag through the detector without a ROS graph: the node's own parts, given all the time they need.

Where the live node waits for other threads, the replay reads on in the bag; where the node would leave out a set
because a newer one has come, the replay works on every set. The rest is the same code.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from bevformer_ros.config import RigConfig
from bevformer_ros.inference.temporal_detector import AnyDetector
from bevformer_ros.ros import topics
from bevformer_ros.ros.bag.files import BagMessage, BagReader
from bevformer_ros.ros.conversions import header_of, label_info
from bevformer_ros.ros.detector_loading import score_thresholds, worth_showing
from bevformer_ros.ros.ego_motion import EgoMotion
from bevformer_ros.ros.message_bytes import type_name_of_class
from bevformer_ros.ros.messages import CameraInfo, CompressedImage, DetectorStatus, Image, TFMessage
from bevformer_ros.ros.node.frame_assembly import AssembledFrame, FrameAssembler, SetDroppedError, SynchronizedSet
from bevformer_ros.ros.node.settings import Settings
from bevformer_ros.ros.node.synchronizer import SurroundSynchronizer
from bevformer_ros.ros.result_messages import ResultMessages
from bevformer_ros.ros.status import DetectorRecord, report_of, stage_latencies
from bevformer_ros.ros.track_messages import TrackMessages
from bevformer_ros.ros.transform_tree import TransformTree
from bevformer_ros.stage_clock import StageClock
from bevformer_ros.tracking.tracker import Tracker
from bevformer_ros.types import MILLISECOND_NS, SECOND_NS, Detections3D, SurroundFrame

TF, TF_STATIC = "/tf", "/tf_static"
IMAGES = (Image, CompressedImage)
Result = TypeVar("Result")
Write = Callable[[str, Any, int], None]


class BagReplay:
    """Replays an open bag once. Memory does not grow with the bag's length.

    write(topic, message, stamp_ns) receives what the node would publish, at the reference stamps of the sets; markers
    only where they are wanted. Raises ValueError for a bag without the rig's images.
    """

    def __init__(
        self,
        bag: BagReader,
        rig: RigConfig,
        settings: Settings,
        detector: AnyDetector,
        write: Write,
        markers: bool = False,
    ) -> None:
        _require_images(bag, rig, settings)
        self.status = DetectorStatus()
        self._rig, self._detector, self._write_message = rig, detector, write
        self._markers = markers
        self._score_thresholds = score_thresholds(settings, detector)
        self._patience_ns = round(settings.transform_timeout_ms * MILLISECOND_NS)
        names = tuple(camera.name for camera in rig.cameras)
        self._record = DetectorRecord(names, detector.config.name, detector.trained)
        self._transforms = TransformTree(round(settings.transform_cache_s * SECOND_NS))
        ego_motion = EgoMotion(self._transforms, rig, settings.output_frame)
        sync = settings.synchronizer(rig)
        self._assembler = FrameAssembler(
            rig.cameras,
            sync.minimum_cameras,
            settings.maximum_image_pixel_ratio,
            ego_motion,
            self,
            network_image=detector.config.image,
        )
        self._results = ResultMessages(ego_motion.output_frame)
        self._tracker = Tracker(settings.tracker_config()) if settings.tracking else None
        self._tracks = TrackMessages(ego_motion.output_frame)
        self._waiting: deque[SynchronizedSet] = deque()
        self._in_work: dict[int, AssembledFrame] = {}
        self._synchronizer = SurroundSynchronizer(sync)
        self._synchronizer.registerCallback(self._on_set)
        self._synchronizer.on_drop(self._on_set_dropped)
        self._now_ns = bag.start_ns
        self._takers = self._make_takers()
        if TF_STATIC in bag.topics:
            for _, message in bag.objects({TF_STATIC: (TFMessage,)}):
                self._take_transforms(self._transforms.add_static, message)
        kinds = {TF: (TFMessage,), **_camera_kinds(rig)}
        self._messages: Iterator[tuple[BagMessage, Any]] = bag.objects(
            {topic: kinds[topic] for topic in bag.topics if topic in self._takers}
        )

    def _make_takers(self) -> dict[str, Callable[[Any], None]]:
        takers: dict[str, Callable[[Any], None]] = {TF: partial(self._take_transforms, self._transforms.add)}
        for index, camera in enumerate(self._rig.cameras):
            takers[camera.image_topic] = partial(self._synchronizer.add, index)
            takers[camera.camera_info_topic] = partial(self._assembler.set_camera_info, index)
        return takers

    def run(self) -> Iterator[DetectorStatus]:
        """Process every set; yields the status of each, in the order in which they are done."""
        labels = label_info(header_of(self._now_ns, self._results.frame), min(self._score_thresholds))
        self._write_message(topics.resolved(topics.LABELS), labels, self._now_ns)
        try:
            for detections in self._detector.replay(self._frames()):
                self._write(detections)
                yield self.status
        finally:
            self._assembler.close()

    def _frames(self) -> Iterator[SurroundFrame]:
        while True:
            while not self._waiting and self._read_on():
                pass
            if not self._waiting:
                return
            images = replace(self._waiting.popleft(), clock=StageClock())
            try:
                assembled = self._assembler.assemble(images)
            except SetDroppedError as error:
                self._drop(images, error.reason)
                continue
            self._in_work[images.stamp_ns] = assembled
            yield assembled.frame

    def retry(self, attempt: Callable[[], Result], late: type[Exception]) -> Result:
        """As Patience has it, but time passes by reading on in the bag."""
        started_ns = self._now_ns
        while True:
            try:
                return attempt()
            except late:
                if self._now_ns - started_ns >= self._patience_ns or not self._read_on():
                    raise

    def _read_on(self) -> bool:
        """Take the next message; False after the last one, when no set waits for more images any longer."""
        entry = next(self._messages, None)
        if entry is None:
            self._synchronizer.expire(self._now_ns)
            self._synchronizer.expire(self._now_ns + self._synchronizer.config.timeout_ns)
            return False
        message, content = entry
        self._now_ns = message.stamp_ns
        self._takers[message.topic](content)
        self._synchronizer.expire(self._now_ns)
        return True

    def _take_transforms(self, add: Callable[[Any], None], message: Any) -> None:
        for transform in message.transforms:
            add(transform)

    def _write(self, detections_bev: Detections3D) -> None:
        assembled = self._in_work.pop(detections_bev.stamp_ns)
        clock = assembled.images.clock
        clock.mark("detector")
        output_from_bev, period_ns = assembled.output_from_bev, self._record.period_ns
        if self._tracker is not None:
            world_from_bev, resets = assembled.frame.world_from_bev, sum(self._detector.history.resets.values())
            tracks = self._tracker(detections_bev, world_from_bev, resets)
            for topic, message in self._tracks.of(tracks, world_from_bev, output_from_bev, period_ns, self._is_wanted):
                self._write_message(topics.resolved(topic), message, detections_bev.stamp_ns)
            clock.mark("track")
        detections_bev = worth_showing(detections_bev, self._score_thresholds)
        for topic, message in self._results.of(
            detections_bev, output_from_bev, period_ns, self._is_wanted, self._detector.error_model
        ):
            self._write_message(topics.resolved(topic), message, detections_bev.stamp_ns)
        clock.mark("write")
        stages = stage_latencies(clock.latencies_ms(), self._detector.latencies_ms)
        self._write_status(assembled.images, stages)

    def _is_wanted(self, topic: str) -> bool:
        return self._markers or topic not in topics.ALL_MARKERS

    def _on_set(self, stamp_ns: int, messages: tuple[Any, ...]) -> None:
        self._waiting.append(SynchronizedSet(stamp_ns, messages))

    def _on_set_dropped(self, stamp_ns: int, messages: tuple[Any, ...], reason: str) -> None:
        self._drop(SynchronizedSet(stamp_ns, messages), reason)

    def _drop(self, images: SynchronizedSet, reason: str) -> None:
        self._write_status(images, {}, reason)

    def _write_status(self, images: SynchronizedSet, latencies_ms: dict[str, float], drop_reason: str = "") -> None:
        report = report_of(images, self._rig.base_frame, latencies_ms, sum(latencies_ms.values(), 0.0), drop_reason)
        history = None if drop_reason else self._detector.history
        images_dropped = {**self._synchronizer.images_dropped, "undecodable": self._assembler.undecodable}
        self.status = self._record.add(report, images_dropped, history)
        self._write_message(topics.resolved(topics.STATUS), self.status, images.stamp_ns)


def _camera_kinds(rig: RigConfig) -> dict[str, tuple[type, ...]]:
    images = {camera.image_topic: IMAGES for camera in rig.cameras}
    return images | {camera.camera_info_topic: (CameraInfo,) for camera in rig.cameras}


def _require_images(bag: BagReader, rig: RigConfig, settings: Settings) -> None:
    known = bag.topics
    right = {topic for topic, entry in known.items() if entry.type_name in map(type_name_of_class, IMAGES)}
    missing = [camera.image_topic for camera in rig.cameras if camera.image_topic not in right]
    reference = next(camera for camera in rig.cameras if camera.name == rig.reference_camera)
    needed = settings.minimum_cameras or len(rig.cameras)
    if reference.image_topic in missing or len(rig.cameras) - len(missing) < needed:
        has = ", ".join(f"{topic} ({known[topic].type_name})" for topic in sorted(known))
        raise ValueError(
            f"{bag.path} has no images on {', '.join(missing)}; it has {has}. Name the rig that was recorded, or allow "
            "sets of fewer cameras"
        )
