"""The node's surroundings in integration tests: a listener to all it says, and a car that feeds it as well."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Sequence
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import rclpy
from bevformer_ros.msg import DetectionKinematicsArray, DetectorStatus
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import Trigger
from support import wait_until
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Detection3DArray
from visualization_msgs.msg import MarkerArray

from bevformer_ros import geometry
from bevformer_ros.config import RigConfig
from bevformer_ros.ros.conversions import header_of, image_to_message, stamp_from_ns, transform_to_message
from bevformer_ros.types import SECOND_NS

START = 1_000 * SECOND_NS
PERIOD = SECOND_NS // 10
START_TIMEOUT_S = 90.0  # on a busy machine torch alone takes half a minute to import
SPEED = 8.0  # m/s along odom's x
BASE_FROM_CAMERA = geometry.transform_from_rpy((1.5, 0.0, 1.6), (-np.pi / 2, 0.0, -np.pi / 2))
OUTPUTS = {
    "detections": Detection3DArray,
    "kinematics": DetectionKinematicsArray,
    "markers": MarkerArray,
    "overlay": Image,
    "status": DetectorStatus,
    "tracks": Detection3DArray,
    "track_kinematics": DetectionKinematicsArray,
}


Listener = TypeVar("Listener", bound="DetectorListener")


class DetectorListener:
    """Enter it. `received` holds by topic what /detector published, in order."""

    def __init__(self, outputs: Collection[str] = OUTPUTS) -> None:
        self.received: dict[str, list[Any]] = {name: [] for name in (*OUTPUTS, "diagnostics", "idle")}
        self.last_status: DetectorStatus | None = None
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self.node = Node("test_rig", context=self._context)
        self._outputs = [
            self.node.create_subscription(OUTPUTS[name], f"/detector/{name}", partial(self._take, name), 100)
            for name in outputs
        ]
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self.received["diagnostics"].append, 100)
        self._change_state = self.node.create_client(ChangeState, "/detector/change_state")
        self._get_state = self.node.create_client(GetState, "/detector/get_state")
        self._reset = self.node.create_client(Trigger, "/detector/reset")
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)

    def _take(self, name: str, message: Any) -> None:
        """Statuses about no set stand apart."""
        idle = name == "status" and message.event == DetectorStatus.IDLE
        self.received["idle" if idle else name].append(message)
        if name == "status":
            self.last_status = message

    def __enter__(self: Listener) -> Listener:
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._executor.shutdown()
        self._thread.join()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    def wait_for_outputs(self) -> None:
        """Until the detector's publishers are there."""
        wait_until(lambda: all(entry.get_publisher_count() for entry in self._outputs), "the detector to publish")

    def wait_for(self, topic: str, count: int, timeout_s: float = 30.0) -> list[Any]:
        """All messages of a topic, once there are at least this many."""
        received = self.received[topic]
        wait_until(lambda: len(received) >= count, f"{count} messages on {topic}", timeout_s)
        return list(received)

    def change_state(self, transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        return self._call(self._change_state, request).success

    def ask_for(self, transition: int) -> Any:
        """The future of a transition that takes long."""
        wait_until(self._change_state.service_is_ready, "the service change_state")
        return self._change_state.call_async(ChangeState.Request(transition=Transition(id=transition)))

    def state(self) -> str:
        return self._call(self._get_state, GetState.Request()).current_state.label

    def reset(self) -> Any:
        return self._call(self._reset, Trigger.Request())

    def call(self, kind: type, name: str, request: Any) -> Any:
        client = self.node.create_client(kind, name)
        response = self._call(client, request)
        self.node.destroy_client(client)
        return response

    def _call(self, client: Any, request: Any) -> Any:
        wait_until(client.service_is_ready, f"the service {client.srv_name}")
        future = client.call_async(request)
        wait_until(future.done, f"an answer of {client.srv_name}")
        return future.result()


class RigPublisher(DetectorListener):
    """A car. warm_up, then publish_next; `received` begins after the warming up."""

    def __init__(self, rig: RigConfig, image_size: tuple[int, int] = (160, 90), outputs: Collection[str] = OUTPUTS):
        super().__init__(outputs)
        self.rig = rig
        self.now_ns = START
        self._images = [self.node.create_publisher(Image, camera.image_topic, 10) for camera in rig.cameras]
        self._infos = [self.node.create_publisher(CameraInfo, camera.camera_info_topic, 10) for camera in rig.cameras]
        self._tf = self.node.create_publisher(TFMessage, "/tf", 100)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._tf_static = self.node.create_publisher(TFMessage, "/tf_static", latched)
        mounts = [transform_to_message(BASE_FROM_CAMERA, "base_link", camera.name, 0) for camera in rig.cameras]
        self._tf_static.publish(TFMessage(transforms=mounts))
        self._clock = self.node.create_publisher(Clock, "/clock", 10)
        width, height = image_size
        self._picture = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
        self._k = [0.8 * width, 0.0, width / 2, 0.0, 0.8 * width, height / 2, 0.0, 0.0, 1.0]
        self.info_k: list[float] | None = None  # instead of the true one
        self._info = CameraInfo(width=width, height=height)

    def warm_up(self, with_clock: bool = False) -> DetectorStatus:
        """Publish sets from START on until one came through; its status, the last before counting begins.

        DDS endpoints that know of each other on one side may still be unknown on the other.
        """
        sources = [*self._images, *self._infos, self._tf, self._tf_static, *([self._clock] if with_clock else [])]
        wait_until(
            lambda: all(source.get_subscription_count() for source in sources),
            "the detector to subscribe",
            START_TIMEOUT_S,
        )
        self.wait_for_outputs()
        self.now_ns = START
        for _ in range(50):
            for messages in self.received.values():
                messages.clear()
            if with_clock:
                self.publish_clock(self.now_ns)
            self.publish_set(self.now_ns)
            self.now_ns += PERIOD
            with contextlib.suppress(TimeoutError):
                wait_until(
                    lambda: all(self.received[entry.topic_name.rpartition("/")[2]] for entry in self._outputs), "", 1.0
                )
                break
        else:
            raise TimeoutError("the detector took none of 50 sets")
        status = self.received["status"][-1]
        for messages in self.received.values():
            messages.clear()
        return status

    def publish_next(self, missing: Sequence[str] = ()) -> int:
        """The next set of a 10 Hz rig; its stamp."""
        stamp_ns = self.now_ns
        self.now_ns += PERIOD
        self.publish_set(stamp_ns, missing)
        return stamp_ns

    def publish_clock(self, stamp_ns: int) -> None:
        self._clock.publish(Clock(clock=stamp_from_ns(stamp_ns)))

    def publish_set(self, stamp_ns: int, missing: Sequence[str] = ()) -> None:
        """One image of every camera at its exposure time, with calibration, after the poses of the car around it."""
        for moment in (stamp_ns - SECOND_NS // 10, stamp_ns, stamp_ns + SECOND_NS // 10):
            odom_from_base = geometry.transform((SPEED * moment / SECOND_NS, 0, 0), (0, 0, 0, 1))
            self._tf.publish(TFMessage(transforms=[transform_to_message(odom_from_base, "odom", "base_link", moment)]))
        for camera, images, infos in zip(self.rig.cameras, self._images, self._infos, strict=True):
            if camera.name in missing:
                continue
            header = header_of(stamp_ns + round(camera.exposure_offset_ms * 1e6), camera.name)
            self._info.header = header
            self._info.k = self.info_k or self._k
            infos.publish(self._info)
            images.publish(image_to_message(self._picture, header))
