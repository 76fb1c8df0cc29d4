"""`bevformer-ros benchmark-sync`: what receiving and synchronising six cameras costs, the network left out."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace

import message_filters
import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.resources import DDS_PROFILE_VARIABLE, config_file
from bevformer_ros.ros.conversions import image_to_message, jpeg_to_message, stamp_from_ns
from bevformer_ros.ros.node.parameters import Settings
from bevformer_ros.ros.node.synchronizer import SurroundSynchronizer
from bevformer_ros.types import MILLISECOND_NS

_JPEG_BYTES = 150_000
_START_TIMEOUT_S = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sets", type=int, default=200, help="sets to publish (default %(default)s)")
    parser.add_argument("--rate", type=float, default=10.0, help="sets per second (default %(default)s)")
    parser.add_argument("--size", type=int, nargs=2, default=(1600, 900), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--compressed", action="store_true", help=f"messages of {_JPEG_BYTES} bytes, not decoded")
    parser.add_argument("--reliable", action="store_true", help="reliable QoS instead of best effort")
    parser.add_argument("--rig", default=Settings.rig, help="name in config/rigs or a YAML (default %(default)s)")
    parser.add_argument("--publish", action="store_true", help=argparse.SUPPRESS)  # the other process of the two


def run(arguments: argparse.Namespace) -> int:
    return publish(arguments) if arguments.publish else receive(arguments)


def publish(arguments: argparse.Namespace) -> int:
    """Sets of images stamped with the time at which they are sent, all cameras at once."""
    rig = load_yaml(RigConfig, config_file("rigs", arguments.rig))
    rclpy.init()
    node = Node("benchmark_publisher")
    kind = CompressedImage if arguments.compressed else Image
    publishers = [node.create_publisher(kind, camera.image_topic, _qos(arguments)) for camera in rig.cameras]
    message = _message(arguments)
    give_up = time.monotonic() + _START_TIMEOUT_S
    while not all(publisher.get_subscription_count() for publisher in publishers):
        if time.monotonic() > give_up:
            print(f"nobody subscribed within {_START_TIMEOUT_S:.0f} s", file=sys.stderr)
            return 1
        time.sleep(0.01)
    time.sleep(0.5)  # the subscriber's side has to know too
    begin = time.monotonic()
    for index in range(arguments.sets):
        message.header.stamp = stamp_from_ns(time.time_ns())
        for publisher in publishers:
            publisher.publish(message)
        time.sleep(max(0.0, begin + (index + 1) / arguments.rate - time.monotonic()))
    time.sleep(1.0)
    node.destroy_node()
    rclpy.shutdown()
    return 0


@dataclass
class Receiver:
    """Latencies of complete sets, and the CPU time between the first and the last."""

    latencies_ms: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    received_at: list[float] = field(default_factory=list)

    def take(self, stamp_ns: int, _messages: tuple[Image | CompressedImage | None, ...]) -> None:
        self.latencies_ms.append((time.time_ns() - stamp_ns) / MILLISECOND_NS)
        self.cpu_s.append(time.process_time())
        self.received_at.append(time.monotonic())


def receive(arguments: argparse.Namespace) -> int:
    """The node's front end as it is, in the main thread, fed by a publisher in a process of its own."""
    rig = load_yaml(RigConfig, config_file("rigs", arguments.rig))
    rclpy.init()
    node = Node("benchmark_receiver")
    receiver = Receiver()
    config = replace(Settings().synchronizer(rig), offsets_ns=(0,) * len(rig.cameras))
    synchronizer = SurroundSynchronizer(config)
    synchronizer.registerCallback(receiver.take)
    kind = CompressedImage if arguments.compressed else Image
    qos = _qos(arguments)
    synchronizer.connectInput(
        *(message_filters.Subscriber(node, kind, camera.image_topic, qos_profile=qos) for camera in rig.cameras)
    )
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    publisher = subprocess.Popen([sys.executable, "-m", "bevformer_ros.commands.cli", *_words(arguments), "--publish"])
    try:
        while publisher.poll() is None:
            executor.spin_once(timeout_sec=0.2)
    except (KeyboardInterrupt, ExternalShutdownException):
        publisher.terminate()
    publisher.wait()
    node.destroy_node()
    rclpy.try_shutdown()
    return report(arguments, receiver, len(rig.cameras), synchronizer)


def report(arguments: argparse.Namespace, receiver: Receiver, cameras: int, synchronizer: SurroundSynchronizer) -> int:
    """Print the figures; exit status 1 where too little arrived to say anything."""
    count = len(receiver.latencies_ms)
    width, height = arguments.size
    what = f"JPEG of {_JPEG_BYTES} bytes, not decoded" if arguments.compressed else f"raw {width} x {height}"
    print(f"{cameras} cameras, {what}, {arguments.rate:g} Hz, {'reliable' if arguments.reliable else 'best effort'}")
    print(f"DDS profile    {os.environ.get(DDS_PROFILE_VARIABLE) or 'none'}")
    tuned = {name: value for name, value in os.environ.items() if name.startswith("MALLOC_")}
    print(f"malloc         {' '.join(f'{name}={value}' for name, value in tuned.items()) or 'defaults'}")
    print(f"sets           {count} of {arguments.sets} synchronised, {arguments.sets - count} lost")
    print(f"dropped        {dict(synchronizer.sets_dropped)} sets, {dict(synchronizer.images_dropped)} images")
    if count < 2:
        print("too few to measure", file=sys.stderr)
        return 1
    cpu_s = receiver.cpu_s[-1] - receiver.cpu_s[0]
    wall_s = receiver.received_at[-1] - receiver.received_at[0]
    p50, p95 = np.percentile(receiver.latencies_ms, (50, 95))
    print(f"CPU            {1000 * cpu_s / (count - 1):.1f} ms per set, {100 * cpu_s / wall_s:.0f} % of a core")
    print(f"latency        p50 {p50:.1f} ms, p95 {p95:.1f} ms from publishing the first image to the complete set")
    return 0


def _words(arguments: argparse.Namespace) -> list[str]:
    switches = [f"--{name}" for name in ("compressed", "reliable") if getattr(arguments, name)]
    values = {"sets": arguments.sets, "rate": arguments.rate, "rig": arguments.rig}
    size = ["--size", *map(str, arguments.size)]
    return ["benchmark-sync", *size, *switches, *(f"--{name}={value}" for name, value in values.items())]


def _qos(arguments: argparse.Namespace) -> QoSProfile:
    reliability = ReliabilityPolicy.RELIABLE if arguments.reliable else ReliabilityPolicy.BEST_EFFORT
    return QoSProfile(depth=Settings.image_depth, reliability=reliability)


def _message(arguments: argparse.Namespace) -> Image | CompressedImage:
    if arguments.compressed:
        return jpeg_to_message(bytes(_JPEG_BYTES), Header(frame_id="camera"))
    width, height = arguments.size
    return image_to_message(np.zeros((height, width, 3), np.uint8), Header(frame_id="camera"))
