"""What exists while the node is active: subscriptions, synchroniser, worker and detector, and what goes between."""

from __future__ import annotations

import os
import time
import traceback
from functools import partial
from typing import Any

import message_filters
from rclpy.lifecycle import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.utilities import get_rmw_implementation_identifier
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from bevformer_ros.config import CameraConfig, RigConfig
from bevformer_ros.inference.compute_threads import compute_threads, compute_with
from bevformer_ros.inference.frame_history import HistoryStatus
from bevformer_ros.inference.gpu_loss import why_lost
from bevformer_ros.inference.memory import out_of_memory_errors, release_memory
from bevformer_ros.inference.temporal_detector import AnyDetector
from bevformer_ros.resources import DDS_PROFILE_VARIABLE
from bevformer_ros.ros.conversions import header_of, stamp_to_ns
from bevformer_ros.ros.detector_loading import device_of, jpeg_device_of, score_thresholds, worth_showing
from bevformer_ros.ros.ego_motion import EgoMotion
from bevformer_ros.ros.node.camera_health import CameraFault
from bevformer_ros.ros.node.frame_assembly import AssembledFrame, FrameAssembler, SetDroppedError, SynchronizedSet
from bevformer_ros.ros.node.health import REMEDIES, UNTRAINED, Assessment, HealthModel, SetOutcome
from bevformer_ros.ros.node.outputs import Outputs
from bevformer_ros.ros.node.patience import Patience
from bevformer_ros.ros.node.qos import subscription_overrides
from bevformer_ros.ros.node.rate_limit import RateLimit
from bevformer_ros.ros.node.rig_check import description, suspicions
from bevformer_ros.ros.node.settings import Settings
from bevformer_ros.ros.node.synchronizer import SurroundSynchronizer
from bevformer_ros.ros.node.worker import PipelinedWorker
from bevformer_ros.ros.status import DetectorRecord, report_of, stage_latencies
from bevformer_ros.ros.transform_tree import NoTransformError
from bevformer_ros.tracking.tracker import Tracker
from bevformer_ros.types import MILLISECOND_NS, SECOND_NS, Detections3D, NotFiniteError

_EXPIRE_CALLS_PER_TIMEOUT = 4
_LOG_INTERVAL_S = 5.0
_RIG_CHECK_S = 1.0


class DetectionSession:
    """Callbacks run in the node's executor and only hand images on; one thread decodes them, waits for transforms and
    preprocesses, while another detects in the set before and publishes. open() begins, close() ends it.

    gpu_lost: why the GPU does nothing for this process any longer; empty while it does.
    """

    def __init__(
        self,
        node: Node,
        settings: Settings,
        rig: RigConfig,
        ego_motion: EgoMotion,
        outputs: Outputs,
        detector: AnyDetector,
    ) -> None:
        """Raises ValueError where JPEGs cannot be decoded as the settings say."""
        self.score_thresholds = score_thresholds(settings, detector)
        self.health = HealthModel(rig, settings.health_limits(), detector.trained, time.monotonic())
        self._depth, self._reliability = settings.image_depth, ReliabilityPolicy[settings.image_reliability.upper()]
        self._rate_limit = RateLimit(settings.publish_rate_limit)
        self._skips_if_unsubscribed = settings.skip_if_unsubscribed
        self._node, self._rig, self.detector, self._outputs = node, rig, detector, outputs
        self._ego_motion, self._device = ego_motion, device_of(settings)
        self.gpu_lost = ""
        self._reset_requested = False
        self._uses_less_memory = settings.on_cuda_oom == "use_less_memory"
        self._tracker = Tracker(settings.tracker_config()) if settings.tracking else None
        self._threads = compute_threads()
        self._profile_checked = False
        self._described: set[str] = set()
        self._rig_checked_s = self._told_s = 0.0
        names = tuple(camera.name for camera in rig.cameras)
        self._record = DetectorRecord(names, detector.config.name, detector.trained)
        self._patience = Patience(
            round(settings.transform_timeout_ms * MILLISECOND_NS), lambda: node.get_clock().now().nanoseconds
        )
        sync = settings.synchronizer(rig)
        self._assembler = FrameAssembler(
            rig.cameras,
            sync.minimum_cameras,
            settings.maximum_image_pixel_ratio,
            ego_motion,
            self._patience,
            jpeg_device_of(settings),
            detector.config.image,
        )
        self._worker = PipelinedWorker(self._prepare, self._process, lambda images: self._drop(images, "superseded"))
        self.synchronizer = SurroundSynchronizer(sync)
        self.synchronizer.registerCallback(self._on_set)
        self.synchronizer.on_drop(self._on_set_dropped)
        self._images: list[message_filters.Subscriber] = []
        self._infos: list[Any] = []
        self._expire_period_s = settings.sync_timeout_ms * 1e-3 / _EXPIRE_CALLS_PER_TIMEOUT
        self._timer: Any = None

    def open(self) -> None:
        """Begin to work, and to subscribe."""
        self._worker.start()
        for index, camera in enumerate(self._rig.cameras):
            image = message_filters.Subscriber(
                self._node, image_type(camera), camera.image_topic, **self._qos(camera.image_topic)
            )
            image.registerCallback(partial(self._note_image, camera.name))
            self._images.append(image)
            take = partial(self._assembler.set_camera_info, index)
            topic = camera.camera_info_topic
            self._infos.append(self._node.create_subscription(CameraInfo, topic, take, **self._qos(topic)))
        self.synchronizer.connectInput(*self._images)
        self._timer = self._node.create_timer(
            self._expire_period_s, lambda: self.synchronizer.expire(self._patience.now_ns())
        )

    def _qos(self, topic: str) -> dict[str, Any]:
        """A profile of its own for each: the overrides are written into it."""
        profile = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=self._depth, reliability=self._reliability)
        return {"qos_profile": profile, "qos_overriding_options": subscription_overrides(self._node, topic)}

    def qos_by_topic(self) -> dict[str, QoSProfile]:
        """Of the subscriptions as they are, by their names in the rig."""
        images = zip(self._rig.cameras, self._images, strict=True)
        infos = zip(self._rig.cameras, self._infos, strict=True)
        return {
            **{camera.image_topic: image.sub.qos_profile for camera, image in images},
            **{camera.camera_info_topic: info.qos_profile for camera, info in infos},
        }

    def close(self, timeout_s: float | None = None) -> bool:
        """End everything; whether the current set was finished within the timeout (None: wait for it)."""
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
        for subscription in (*(image.sub for image in self._images), *self._infos):
            self._node.destroy_subscription(subscription)
        self._patience.stopped.set()
        ended = self._worker.stop(timeout_s)
        for images in self._worker.not_begun:
            self._drop(images, "deactivated")
        self.synchronizer.clear("deactivated")
        if ended:
            self._assembler.close()
        return ended

    def request_reset(self) -> None:
        """The worker forgets the temporal history before its next set."""
        self._reset_requested = True

    def note_health(self, assessment: Assessment) -> None:
        """What the status says from now on."""
        self._record.note_health(assessment)

    def publish_idle(self, after_s: float) -> None:
        """Say that no set comes, if none has come for so long."""
        if time.monotonic() - self._told_s >= after_s:
            self._publish(self._record.idle(header_of(self._patience.now_ns(), self._rig.base_frame)))

    def _note_image(self, camera: str, message: Image | CompressedImage) -> None:
        self.health.note_image(camera, stamp_to_ns(message.header.stamp), time.monotonic())
        if not self._profile_checked:
            self._profile_checked = True
            warn_without_dds_profile(self._node)

    def _on_set(self, stamp_ns: int, messages: tuple[Any, ...]) -> None:
        images = SynchronizedSet(stamp_ns, messages)
        if self._skips_if_unsubscribed and not self._outputs.has_listeners():
            self._drop(images, "unsubscribed")
        elif not self._rate_limit.admits(stamp_ns):
            self._drop(images, "rate_limit")
        else:
            self._worker.put(images)

    def _on_set_dropped(self, stamp_ns: int, messages: tuple[Any, ...], reason: str) -> None:
        self._drop(SynchronizedSet(stamp_ns, messages), reason)

    def _prepare(self, images: SynchronizedSet) -> tuple[AssembledFrame, Any] | None:
        compute_with(1)
        images.clock.mark("queue")
        try:
            with self.detector.preparing():
                assembled = self._assembler.assemble(images)
                self._note_assembled(assembled.images, assembled.faults)
                prepared = self.detector.prepare(assembled.frame)
            self.health.note_decoded_on_cpu(self._assembler.decoded_on_cpu)
            self._check_rig(assembled)
            images.clock.mark("preprocess")
            return assembled, prepared
        except SetDroppedError as error:
            if error.faults:
                self._note_assembled(images, error.faults)
            self._drop(images, error.reason, detail=str(error))
        except out_of_memory_errors() as error:
            self._drop_for_memory(images, error)
        except Exception:
            self._drop_failed(images)
        return None

    def _note_assembled(self, images: SynchronizedSet, faults: tuple[CameraFault, ...]) -> None:
        if self._patience.stopped.is_set():
            return
        faulty = {fault.camera for fault in faults}
        present = zip(self._rig.cameras, images.messages, strict=True)
        used = [camera.name for camera, message in present if message is not None and camera.name not in faulty]
        self.health.note_assembled(used, faults, time.monotonic())

    def _check_rig(self, assembled: AssembledFrame) -> None:
        """Now and then, since calibration and mounting may change."""
        now_s = time.monotonic()
        if now_s - self._rig_checked_s < _RIG_CHECK_S:
            return
        self._rig_checked_s = now_s
        frame = assembled.frame
        try:
            base_from_bev = self._ego_motion.base_from_bev(frame.stamp_ns)
        except NoTransformError:
            return
        present = zip(self._rig.cameras, assembled.images.messages, strict=True)
        camera_frames = {camera.name: message.header.frame_id for camera, message in present if message is not None}
        self.health.note_suspicions(suspicions(frame, base_from_bev, camera_frames))
        if not self._described.issuperset(camera_frames):
            self._described.update(camera_frames)
            self._node.get_logger().info(f"rig: {description(frame, self.detector.config.bev.range)}")

    def _process(self, work: tuple[AssembledFrame, Any]) -> None:
        compute_with(self._threads)
        assembled, prepared = work
        images = assembled.images
        self.health.note_begun(time.monotonic())
        try:
            detections = self._detect(assembled, prepared)
        except NotFiniteError:
            self.detector.reset("not_finite")
            self._drop(images, "not_finite")
        except out_of_memory_errors() as error:
            self._drop_for_memory(images, error)
            if self._uses_less_memory and self.detector.use_less_memory():
                self._node.get_logger().warning(
                    "the GPU's memory does not suffice: running without CUDA graphs from now on, which need "
                    "more of it; the next activation tries them again"
                )
        except Exception:
            self._drop_failed(images)
        else:
            self._draw(assembled, detections)
        finally:
            self.health.note_done()

    def _detect(self, assembled: AssembledFrame, prepared: Any) -> Detections3D:
        clock = assembled.images.clock
        clock.mark("wait_for_network")
        if self._reset_requested:
            self._reset_requested = False
            self.detector.reset("request")
        detections = self.detector(prepared)
        clock.mark("detector")
        if self._tracker is not None:  # poor boxes too continue tracks
            world_from_bev, resets = assembled.frame.world_from_bev, sum(self.detector.history.resets.values())
            tracks = self._tracker(detections, world_from_bev, resets)
            self._outputs.publish_tracks(tracks, world_from_bev, assembled.output_from_bev, self._record.period_ns)
            clock.mark("track")
        detections = worth_showing(detections, self.score_thresholds)
        self._outputs.publish_detections(
            detections, assembled.output_from_bev, self._record.period_ns, self.detector.error_model
        )
        clock.mark("publish")
        node_ms = clock.latencies_ms()
        latencies_ms = stage_latencies(node_ms, self.detector.latencies_ms)
        self._publish_status(assembled.images, self.detector.history, latencies_ms, sum(node_ms.values()))
        return detections

    def _draw(self, assembled: AssembledFrame, detections: Detections3D) -> None:
        """The set counts as processed, whatever becomes of its picture."""
        try:
            self._outputs.publish_overlay(assembled.frame, detections, "" if self.detector.trained else UNTRAINED)
        except Exception:
            text = f"the overlay could not be drawn:\n{traceback.format_exc()}"
            self._node.get_logger().error(text, throttle_duration_sec=_LOG_INTERVAL_S)

    def _drop(self, images: SynchronizedSet, reason: str, trace: str = "", detail: str = "") -> None:
        """trace: for the log; detail: for the health, which goes to the log too."""
        if trace and not self._patience.stopped.is_set():
            self._node.get_logger().error(f"set dropped, {reason}: {trace}", throttle_duration_sec=_LOG_INTERVAL_S)
        self._publish_status(images, None, {}, 0.0, reason, detail)

    def _drop_failed(self, images: SynchronizedSet) -> None:
        """The node must outlive a set that breaks it; it cannot outlive its GPU."""
        self._drop(images, "failed", traceback.format_exc())
        self.gpu_lost = self.gpu_lost or why_lost(self._device)

    def _drop_for_memory(self, images: SynchronizedSet, error: RuntimeError) -> None:
        reason = str(error).splitlines()[0]
        error.__traceback__ = None  # its frames hold tensors
        release_memory()
        self._drop(images, "out_of_memory", detail=f"{reason}; {REMEDIES['out_of_memory']}")

    def _publish_status(
        self,
        images: SynchronizedSet,
        history: HistoryStatus | None,
        latencies_ms: dict[str, float],
        total_ms: float,
        drop_reason: str = "",
        detail: str = "",
    ) -> None:
        report = report_of(images, self._rig.base_frame, latencies_ms, total_ms, drop_reason)
        missing = tuple(camera.name for camera, used in zip(self._rig.cameras, report.used, strict=True) if not used)
        age_s = None if drop_reason else (self._patience.now_ns() - images.stamp_ns) / SECOND_NS
        self.health.note_set(SetOutcome(time.monotonic(), drop_reason, missing, age_s, detail), history)
        images_dropped = {**self.synchronizer.images_dropped, "undecodable": self._assembler.undecodable}
        self._publish(self._record.add(report, images_dropped, history))

    def _publish(self, status: Any) -> None:
        self._told_s = time.monotonic()
        self._outputs.publish_status(status)


def image_type(camera: CameraConfig) -> type[Image] | type[CompressedImage]:
    return CompressedImage if camera.compressed else Image


def warn_without_dds_profile(node: Node) -> None:
    """Fast DDS's own shared memory is smaller than one large image, so that sets would be lost without a word."""
    if "fastrtps" in get_rmw_implementation_identifier() and not os.environ.get(DDS_PROFILE_VARIABLE):
        node.get_logger().warning(
            "images arrive over Fast DDS without a profile for large messages, expect losses: set "
            f"{DDS_PROFILE_VARIABLE} to config/dds/fastdds_large_images.xml of this package "
            "for this node and for the camera drivers (the launch file does it for the node)"
        )
