"""A car that drives by itself, with /clock, and whose sensors fail as a test wants."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from rig_publisher import SPEED, START, DetectorListener
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from support import REPOSITORY
from tf2_msgs.msg import TFMessage

from bevformer_ros import geometry
from bevformer_ros.config import CameraConfig, RigConfig, load_yaml
from bevformer_ros.ros.conversions import (
    header_of,
    image_to_message,
    jpeg_to_message,
    stamp_from_ns,
    transform_to_message,
)
from bevformer_ros.types import MILLISECOND_NS, SECOND_NS

SIZE = (160, 90)
PERIOD_S = 0.1
OPTICAL_FROM_LINK = geometry.transform_from_rpy((0.0, 0.0, 0.0), (-np.pi / 2, 0.0, -np.pi / 2))
HEADINGS = {
    "CAM_FRONT": 0.0,
    "CAM_FRONT_RIGHT": -55.0,
    "CAM_FRONT_LEFT": 55.0,
    "CAM_BACK": 180.0,
    "CAM_BACK_LEFT": 110.0,
    "CAM_BACK_RIGHT": -110.0,
}
JPEG_CAMERA = "CAM_BACK_LEFT"


def car_rig() -> RigConfig:
    """The nuScenes rig, one of whose cameras sends JPEGs."""
    rig = load_yaml(RigConfig, REPOSITORY / "config" / "rigs" / "nuscenes.yaml")
    return replace(rig, cameras=tuple(replace(camera, compressed=camera.name == JPEG_CAMERA) for camera in rig.cameras))


@dataclass
class Exposure:
    """What a camera is about to send; None for nothing."""

    image: Image | CompressedImage | None
    info: CameraInfo | None

    def shift(self, seconds: float) -> None:
        """The stamp, without the clock knowing."""
        stamp = self.image.header.stamp
        stamp_ns = stamp.sec * SECOND_NS + stamp.nanosec + round(seconds * SECOND_NS)
        self.image.header.stamp = stamp_from_ns(stamp_ns)


Alter = Callable[[Exposure], None]


class FaultyCar(DetectorListener):
    """Enter it, then drive(). alter: by camera, what is done to its messages. mounted: cameras that tf knows.

    now_ns: the clock; it may be set back. odometry, clock: whether they are sent.
    """

    def __init__(self, rig: RigConfig) -> None:
        super().__init__(outputs=["status"])
        self.rig, self.now_ns = rig, START
        self.alter: dict[str, Alter] = {}
        self.odometry = self.clock = True
        self.before_set: Callable[[FaultyCar], None] | None = None
        self.other: Node | None = None
        self._stopping = threading.Event()
        self._other_context = rclpy.Context()
        rclpy.init(context=self._other_context)
        self._stranger = Node("stranger", context=self._other_context)
        self._images = {camera.name: self.advertise(camera) for camera in rig.cameras}
        self._infos = {
            camera.name: self.node.create_publisher(CameraInfo, camera.camera_info_topic, 10) for camera in rig.cameras
        }
        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._tf = self.node.create_publisher(TFMessage, "/tf", 100)
        self._tf_static = self.node.create_publisher(TFMessage, "/tf_static", latched)
        self._clock = self.node.create_publisher(Clock, "/clock", 10)
        picture = np.random.default_rng(0).integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
        self._picture, self._jpeg = picture, cv2.imencode(".jpg", picture)[1].tobytes()
        self._driver = threading.Thread(target=self._drive, daemon=True)

    def advertise(self, camera: CameraConfig, topic: str = "") -> Publisher:
        """A publisher of the camera's images, on another topic if wanted."""
        return self.node.create_publisher(
            CompressedImage if camera.compressed else Image, topic or camera.image_topic, 10
        )

    def publish_on(self, name: str, topic: str = "") -> None:
        """From now on the camera sends on another topic; on its own where none is given."""
        self.node.destroy_publisher(self._images[name])
        self._images[name] = self.advertise(self._camera(name), topic)

    def stop_publishing(self, name: str) -> None:
        """There is no driver any more; publish_on() starts it again."""
        self.publish_on(name, f"/nowhere/near/{name}")

    def let_a_stranger_publish(self, name: str, kind: type) -> None:
        """Another type on the camera's topic, which takes another participant; ended by dismiss_the_stranger()."""
        self._stranger.create_publisher(kind, self._camera(name).image_topic, 10)

    def dismiss_the_stranger(self) -> None:
        for publisher in list(self._stranger.publishers):
            if publisher.topic_name.endswith("image_raw"):
                self._stranger.destroy_publisher(publisher)

    def _camera(self, name: str) -> CameraConfig:
        return next(camera for camera in self.rig.cameras if camera.name == name)

    def mount(self, name: str, optical: bool = True) -> None:
        base_from_camera = geometry.transform_from_rpy((1.0, 0.0, 1.6), (0.0, 0.0, np.radians(HEADINGS[name])))
        if optical:
            base_from_camera = base_from_camera @ OPTICAL_FROM_LINK
        frame = name if optical else f"{name}_link"
        self.send_static(frame, base_from_camera)

    def send_static(self, frame: str, base_from_frame: np.ndarray) -> None:
        self._tf_static.publish(TFMessage(transforms=[transform_to_message(base_from_frame, "base_link", frame, 0)]))

    def send_transform(self, parent: str, child: str, stamp_ns: int, parent_from_child: np.ndarray) -> None:
        self._tf.publish(TFMessage(transforms=[transform_to_message(parent_from_child, parent, child, stamp_ns)]))

    def drive(self) -> None:
        self._driver.start()

    def __exit__(self, kind, error, trace) -> None:
        self._stopping.set()
        if self._driver.is_alive():
            self._driver.join()
        self._stranger.destroy_node()
        rclpy.shutdown(context=self._other_context)
        super().__exit__(kind, error, trace)

    def another_node(self) -> Node:
        """Of the detector's name."""
        return Node("detector", context=self.node.context)

    def _drive(self) -> None:
        while not self._stopping.wait(PERIOD_S):
            if self.clock:
                self.now_ns += round(PERIOD_S * SECOND_NS)
                self._clock.publish(Clock(clock=stamp_from_ns(self.now_ns)))
            if self.before_set is not None:
                self.before_set(self)
            if self.odometry:
                for moment in (self.now_ns, self.now_ns + SECOND_NS // 10):
                    odom_from_base = geometry.transform((SPEED * moment / SECOND_NS, 0, 0), (0, 0, 0, 1))
                    self.send_transform("odom", "base_link", moment, odom_from_base)
            for camera in self.rig.cameras:
                self._expose(camera)

    def _expose(self, camera: CameraConfig) -> None:
        stamp_ns = self.now_ns + round(camera.exposure_offset_ms * MILLISECOND_NS)
        header = header_of(stamp_ns, camera.name)
        image = jpeg_to_message(self._jpeg, header) if camera.compressed else image_to_message(self._picture, header)
        width, height = SIZE
        k = [0.8 * width, 0.0, width / 2, 0.0, 0.8 * width, height / 2, 0.0, 0.0, 1.0]
        exposure = Exposure(image, CameraInfo(header=header, width=width, height=height, k=k))
        self.alter.get(camera.name, lambda exposure: None)(exposure)
        publisher = self._images[camera.name]
        if exposure.info is not None:
            self._infos[camera.name].publish(exposure.info)
        if exposure.image is not None:
            publisher.publish(exposure.image)
