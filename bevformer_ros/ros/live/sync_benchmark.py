"""What receiving and synchronising six cameras costs, the network left out."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field, replace
from multiprocessing import get_context

import message_filters
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from bevformer_ros.config import RigConfig
from bevformer_ros.resources import DDS_PROFILE_VARIABLE
from bevformer_ros.ros.conversions import image_to_message, jpeg_to_message, stamp_from_ns
from bevformer_ros.ros.node.settings import Settings
from bevformer_ros.ros.node.synchronizer import SurroundSynchronizer
from bevformer_ros.types import MILLISECOND_NS

JPEG_BYTES = 150_000
_START_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class SyncLoad:
    """What is published."""

    rig: RigConfig
    sets: int = 200
    """Sets of images to publish."""
    rate: float = 10.0
    """Sets a second."""
    size: tuple[int, int] = (1600, 900)
    """Width and height of raw images."""
    compressed: bool = False
    """Publish messages of 150 kB, as JPEGs are, which are not decoded."""
    reliable: bool = False
    """Reliable QoS instead of best effort."""

    def __str__(self) -> str:
        width, height = self.size
        what = f"JPEG of {JPEG_BYTES} bytes, not decoded" if self.compressed else f"raw {width} x {height}"
        quality = "reliable" if self.reliable else "best effort"
        return f"{len(self.rig.cameras)} cameras, {what}, {self.rate:g} Hz, {quality}"

    @property
    def message_class(self) -> type[Image | CompressedImage]:
        return CompressedImage if self.compressed else Image

    @property
    def qos(self) -> QoSProfile:
        reliability = ReliabilityPolicy.RELIABLE if self.reliable else ReliabilityPolicy.BEST_EFFORT
        return QoSProfile(depth=Settings.image_depth, reliability=reliability)


@dataclass(frozen=True)
class SyncFigures:
    """latencies_ms: from publishing a set's first image to its being complete. cpu_share: of a core."""

    latencies_ms: list[float]
    cpu_ms_per_set: float
    cpu_share: float
    sets_dropped: dict[str, int]
    images_dropped: dict[str, int]

    def table(self, load: SyncLoad) -> str:
        count = len(self.latencies_ms)
        p50, p95 = np.percentile(self.latencies_ms, (50, 95))
        tuned = " ".join(f"{name}={value}" for name, value in os.environ.items() if name.startswith("MALLOC_"))
        return "\n".join(
            [
                str(load),
                f"DDS profile    {os.environ.get(DDS_PROFILE_VARIABLE) or 'none'}",
                f"malloc         {tuned or 'defaults'}",
                f"sets           {count} of {load.sets} synchronised, {load.sets - count} lost",
                f"dropped        {self.sets_dropped} sets, {self.images_dropped} images",
                f"CPU            {self.cpu_ms_per_set:.1f} ms per set, {100 * self.cpu_share:.0f} % of a core",
                f"latency        p50 {p50:.1f} ms, p95 {p95:.1f} ms from the publishing of the first image on",
            ]
        )


def _publish(load: SyncLoad) -> None:
    """Sets of images stamped with the time at which they are sent, all cameras at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one ends it
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = Node("benchmark_publisher")
    publishers = [
        node.create_publisher(load.message_class, camera.image_topic, load.qos) for camera in load.rig.cameras
    ]
    message = _message(load)
    give_up = time.monotonic() + _START_TIMEOUT_S
    while not all(publisher.get_subscription_count() for publisher in publishers):
        if time.monotonic() > give_up:
            raise TimeoutError(f"nobody subscribed within {_START_TIMEOUT_S:.0f} s")
        time.sleep(0.01)
    time.sleep(0.5)  # the subscriber's side has to know too
    begin = time.monotonic()
    for index in range(load.sets):
        message.header.stamp = stamp_from_ns(time.time_ns())
        for publisher in publishers:
            publisher.publish(message)
        time.sleep(max(0.0, begin + (index + 1) / load.rate - time.monotonic()))
    time.sleep(1.0)
    node.destroy_node()
    rclpy.shutdown()


@dataclass
class _Receiver:
    """Latencies of complete sets, and the CPU time between the first and the last."""

    latencies_ms: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    received_at: list[float] = field(default_factory=list)

    def take(self, stamp_ns: int, _messages: tuple[Image | CompressedImage | None, ...]) -> None:
        self.latencies_ms.append((time.time_ns() - stamp_ns) / MILLISECOND_NS)
        self.cpu_s.append(time.process_time())
        self.received_at.append(time.monotonic())


def measure(load: SyncLoad) -> SyncFigures:
    """The node's front end as it is, in the main thread, fed by a publisher in a process of its own. Raises ValueError
    where too little arrived to say anything."""
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = Node("benchmark_receiver")
    receiver = _Receiver()
    config = replace(Settings().synchronizer(load.rig), offsets_ns=(0,) * len(load.rig.cameras))
    synchronizer = SurroundSynchronizer(config)
    synchronizer.registerCallback(receiver.take)
    synchronizer.connectInput(
        *(
            message_filters.Subscriber(node, load.message_class, camera.image_topic, qos_profile=load.qos)
            for camera in load.rig.cameras
        )
    )
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    publisher = get_context("spawn").Process(target=_publish, args=(load,), daemon=True)
    publisher.start()
    try:
        while publisher.is_alive():
            executor.spin_once(timeout_sec=0.2)
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return _figures(load, receiver, synchronizer)


def _figures(load: SyncLoad, receiver: _Receiver, synchronizer: SurroundSynchronizer) -> SyncFigures:
    steps = len(receiver.latencies_ms) - 1
    dropped, images = dict(synchronizer.sets_dropped), dict(synchronizer.images_dropped)
    if steps < 1:
        raise ValueError(
            f"too few sets to measure: {steps + 1} of {load.sets} synchronised, dropped {dropped} sets, {images} images"
        )
    cpu_s = receiver.cpu_s[-1] - receiver.cpu_s[0]
    wall_s = receiver.received_at[-1] - receiver.received_at[0]
    return SyncFigures(receiver.latencies_ms, 1000 * cpu_s / steps, cpu_s / wall_s, dropped, images)


def _message(load: SyncLoad) -> Image | CompressedImage:
    if load.compressed:
        return jpeg_to_message(bytes(JPEG_BYTES), Header(frame_id="camera"))
    width, height = load.size
    return image_to_message(np.zeros((height, width, 3), np.uint8), Header(frame_id="camera"))
