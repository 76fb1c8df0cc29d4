"""What exists while the node is active: subscriptions, synchroniser, worker and detector, and what goes between."""

from __future__ import annotations

import os
import time
import traceback
from typing import Any, NamedTuple

import message_filters
import torch
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.utilities import get_rmw_implementation_identifier
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from bevformer_ros.config import RigConfig
from bevformer_ros.inference.compute_threads import compute_with
from bevformer_ros.inference.pipeline import Detector, HistoryStatus, PreparedFrame
from bevformer_ros.resources import DDS_PROFILE_VARIABLE
from bevformer_ros.ros.ego_motion import EgoMotion
from bevformer_ros.ros.node.frame_assembly import AssembledFrame, FrameAssembler, ImageSet, SetDroppedError, Stopwatch
from bevformer_ros.ros.node.outputs import Outputs
from bevformer_ros.ros.node.patience import Patience
from bevformer_ros.ros.node.settings import Settings
from bevformer_ros.ros.node.synchronizer import SurroundSynchronizer
from bevformer_ros.ros.node.worker import PipelinedWorker
from bevformer_ros.ros.status import DetectorRecord, report_of, stage_latencies
from bevformer_ros.types import MILLISECOND_NS

UNTRAINED = "UNTRAINED: the weights are random, the boxes mean nothing"
_EXPIRE_CALLS_PER_TIMEOUT = 4
_LOG_INTERVAL_S = 5.0


class _Assembled(NamedTuple):
    """A set between the two threads."""

    assembled: AssembledFrame
    prepared: PreparedFrame
    stopwatch: Stopwatch


class DetectionSession:
    """Callbacks run in the node's executor and only hand images on; one thread decodes them, waits for transforms and
    preprocesses, while another detects in the set before and publishes."""

    def __init__(
        self,
        node: Node,
        settings: Settings,
        rig: RigConfig,
        ego_motion: EgoMotion,
        outputs: Outputs,
        detector: Detector,
    ) -> None:
        self.score_threshold = settings.score_threshold
        self._node, self._rig, self._detector, self._outputs = node, rig, detector, outputs
        self._reset_requested = False
        self._threads = torch.get_num_threads()
        self._profile_checked = False
        self._received = [0] * len(rig.cameras)
        names = tuple(camera.name for camera in rig.cameras)
        self._record = DetectorRecord(names, detector.config.name, detector.trained)
        self._patience = Patience(
            round(settings.transform_timeout_ms * MILLISECOND_NS), lambda: node.get_clock().now().nanoseconds
        )
        sync = settings.synchronizer(rig)
        self._assembler = FrameAssembler(
            rig.cameras, sync.minimum_cameras, ego_motion, self._patience, settings.jpeg_decoder
        )
        self._worker = PipelinedWorker(self._assemble, self._process, lambda images: self._drop(images, "superseded"))
        self.synchronizer = SurroundSynchronizer(sync)
        self.synchronizer.registerCallback(self._on_set)
        self.synchronizer.on_drop(self._on_set_dropped)
        self._subscribe(settings)
        period_s = settings.sync_timeout_ms * 1e-3 / _EXPIRE_CALLS_PER_TIMEOUT
        self._timer = node.create_timer(period_s, lambda: self.synchronizer.expire(self._patience.now_ns()))

    def _subscribe(self, settings: Settings) -> None:
        qos = QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=settings.image_depth,
            reliability=ReliabilityPolicy[settings.image_reliability.upper()],
        )
        self._images, self._infos = [], []
        for index, camera in enumerate(self._rig.cameras):
            kind = CompressedImage if camera.compressed else Image
            image = message_filters.Subscriber(self._node, kind, camera.image_topic, qos_profile=qos)
            image.registerCallback(lambda _, index=index: self._note_image(index))
            self._images.append(image)
            info = self._node.create_subscription(
                CameraInfo,
                camera.camera_info_topic,
                lambda message, index=index: self._assembler.set_camera_info(index, message),
                qos,
            )
            self._infos.append(info)
        self.synchronizer.connectInput(*self._images)

    def close(self, timeout_s: float | None = None) -> bool:
        """End everything; whether the current set was finished within the timeout (None: wait for it)."""
        self._node.destroy_timer(self._timer)
        for subscription in (*(image.sub for image in self._images), *self._infos):
            self._node.destroy_subscription(subscription)
        self._patience.stopped.set()
        ended = self._worker.stop(timeout_s)
        for images in self._worker.not_begun:
            self._drop(images, "deactivated")
        self.synchronizer.clear("deactivated")
        self._assembler.close()
        return ended

    def request_reset(self) -> None:
        """The worker forgets the temporal history before its next set."""
        self._reset_requested = True

    def diagnose(self, elapsed_s: float) -> DiagnosticStatus:
        """See DetectorRecord.diagnose."""
        received, self._received = self._received, [0] * len(self._received)
        silent = tuple(camera.name for camera, count in zip(self._rig.cameras, received, strict=True) if not count)
        return self._record.diagnose(self._node.get_fully_qualified_name(), silent, elapsed_s)

    def _note_image(self, camera: int) -> None:
        self._received[camera] += 1
        if not self._profile_checked:
            self._profile_checked = True
            warn_without_dds_profile(self._node)

    def _on_set(self, stamp_ns: int, messages: tuple[Any, ...]) -> None:
        self._worker.put(ImageSet(stamp_ns, messages, time.perf_counter()))

    def _on_set_dropped(self, stamp_ns: int, messages: tuple[Any, ...], reason: str) -> None:
        self._drop(ImageSet(stamp_ns, messages, time.perf_counter()), reason)

    def _assemble(self, images: ImageSet) -> _Assembled | None:
        compute_with(1)
        stopwatch = Stopwatch(images.emitted_at)
        stopwatch.lap("queue")
        try:
            assembled = self._assembler.assemble(images, stopwatch)
            if assembled.faults:
                faults = "; ".join(assembled.faults)
                self._node.get_logger().error(f"images left out: {faults}", throttle_duration_sec=_LOG_INTERVAL_S)
            prepared = self._detector.prepare(assembled.frame)
            stopwatch.lap("preprocess")
            return _Assembled(assembled, prepared, stopwatch)
        except SetDroppedError as error:
            self._drop(images, error.reason, str(error))
        except Exception:  # the node must outlive a set that breaks it
            self._drop(images, "failed", traceback.format_exc())
        return None

    def _process(self, prepared: _Assembled) -> None:
        compute_with(self._threads)
        try:
            self._detect(*prepared)
        except Exception:  # as above
            self._drop(prepared.assembled.images, "failed", traceback.format_exc())

    def _detect(self, assembled: AssembledFrame, prepared: PreparedFrame, stopwatch: Stopwatch) -> None:
        images = assembled.images
        stopwatch.lap("wait_for_network")
        if self._reset_requested:
            self._reset_requested = False
            self._detector.reset("request")
        detections = self._detector(prepared)
        stopwatch.lap("detector")
        detections = detections.select(detections.scores >= self.score_threshold)
        self._outputs.publish_detections(detections, assembled.output_from_bev, self._record.period_ns)
        stopwatch.lap("publish")
        total_ms = 1000 * (time.perf_counter() - images.emitted_at)
        self._publish_status(
            images, self._detector.history, stage_latencies(stopwatch.laps, self._detector.latencies_ms), total_ms
        )
        self._outputs.publish_overlay(assembled.frame, detections, "" if self._detector.trained else UNTRAINED)

    def _drop(self, images: ImageSet, reason: str, text: str = "") -> None:
        if text and not self._patience.stopped.is_set():
            self._node.get_logger().error(f"set dropped, {reason}: {text}", throttle_duration_sec=_LOG_INTERVAL_S)
        self._publish_status(images, None, {}, 0.0, reason)

    def _publish_status(
        self,
        images: ImageSet,
        history: HistoryStatus | None,
        latencies_ms: dict[str, float],
        total_ms: float,
        drop_reason: str = "",
    ) -> None:
        report = report_of(images, self._rig.base_frame, latencies_ms, total_ms, drop_reason)
        images_dropped = {**self.synchronizer.images_dropped, "undecodable": self._assembler.undecodable}
        self._outputs.publish_status(self._record.add(report, images_dropped, history))


def warn_without_dds_profile(node: Node) -> None:
    """Fast DDS's own shared memory is smaller than one large image, so that sets would be lost without a word."""
    if "fastrtps" in get_rmw_implementation_identifier() and not os.environ.get(DDS_PROFILE_VARIABLE):
        node.get_logger().warning(
            "images arrive over Fast DDS without a profile for large messages, expect losses: set "
            f"{DDS_PROFILE_VARIABLE} to config/dds/fastdds_large_images.xml of this package "
            "for this node and for the camera drivers (the launch file does it for the node)"
        )
