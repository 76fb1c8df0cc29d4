"""`bevformer-ros benchmark-node`: the whole node, fed by six cameras over DDS: rate, drops, latency, CPU, by stage.

Three processes as on a car: one publishes for all cameras, one is the node, and we listen to its status.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import rclpy
from bevformer_ros.msg import DetectorStatus
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from bevformer_ros import geometry
from bevformer_ros.benchmarks.frames import JPEG_QUALITY, picture
from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.inference.pipeline import Precision
from bevformer_ros.resources import config_file, model_file
from bevformer_ros.ros import topics
from bevformer_ros.ros.bag.simulated_drive import camera_info, cameras_of, image_size, static_transforms
from bevformer_ros.ros.conversions import (
    header_of,
    image_to_message,
    jpeg_to_message,
    stamp_from_ns,
    stamp_to_ns,
    transform_to_message,
)
from bevformer_ros.ros.live.child_process import ChildProcess
from bevformer_ros.ros.live.demo import prepare_environment
from bevformer_ros.types import SECOND_NS

_START_TIMEOUT_S = 180.0  # for loading and warming up a large network
_DISCOVERY_S = 1.0
_SILENCE_S = 3.0  # after the last image, without news from the node: nothing more will come
_WARM_UP_SETS = 10
_SPEED = 10.0  # m/s, straight ahead


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="tiny", help="name in config/models or a file (default %(default)s)")
    parser.add_argument("--weights", default="", help="file; without it the model's own or random ones")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default %(default)s)")
    parser.add_argument("--precision", choices=get_args(Precision), default="float32", help="(default %(default)s)")
    parser.add_argument("--sets", type=int, default=200, help="sets to publish (default %(default)s)")
    parser.add_argument("--rate", type=float, default=10.0, help="sets per second (default %(default)s)")
    parser.add_argument("--size", type=image_size, default=(1600, 900), metavar="WxH", help="(default 1600x900)")
    parser.add_argument("--raw", action="store_true", help="sensor_msgs/Image instead of JPEGs")
    parser.add_argument("--publish", action="store_true", help=argparse.SUPPRESS)  # the other process of the two


def run(arguments: argparse.Namespace) -> int:
    if arguments.publish:
        return publish(arguments)
    if arguments.sets <= _WARM_UP_SETS:
        raise ValueError(f"--sets must be more than {_WARM_UP_SETS}, which are left out, got {arguments.sets}")
    prepare_environment()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "detector.log"
        listener = _listen(arguments, log)
        if not any(status.latencies for status in listener.statuses):
            print(log.read_text(encoding="utf-8"), file=sys.stderr)
    return report(arguments, listener)


def _rig(arguments: argparse.Namespace) -> RigConfig:
    return load_yaml(RigConfig, config_file("rigs", "nuscenes" if arguments.raw else "nuscenes_compressed"))


def publish(arguments: argparse.Namespace) -> int:
    """Sets of images stamped with the time at which they are sent, all cameras at once, with calibration and poses."""
    rig = _rig(arguments)
    cameras = cameras_of(rig, arguments.size)
    rclpy.init()
    node = Node("benchmark_cameras")
    kind, qos = Image if arguments.raw else CompressedImage, QoSProfile(depth=5)
    images = [node.create_publisher(kind, camera.image_topic, qos) for camera in rig.cameras]
    infos = [node.create_publisher(CameraInfo, camera.camera_info_topic, qos) for camera in rig.cameras]
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    poses, mounts = (
        node.create_publisher(TFMessage, "/tf", 100),
        node.create_publisher(TFMessage, "/tf_static", latched),
    )
    mounts.publish(static_transforms(rig, cameras))
    messages = [_message(arguments, index, camera.name) for index, camera in enumerate(cameras)]
    calibrations = [
        camera_info(header_of(0, camera.name), (camera.height, camera.width), camera.intrinsics) for camera in cameras
    ]
    give_up = time.monotonic() + _START_TIMEOUT_S
    while not all(publisher.get_subscription_count() for publisher in (poses, mounts, *images)):
        if time.monotonic() > give_up:
            print(f"no node subscribed within {_START_TIMEOUT_S:.0f} s", file=sys.stderr)
            return 1
        time.sleep(0.05)
    time.sleep(_DISCOVERY_S)  # the subscriber's side has to know too
    begin = time.monotonic()
    for step in range(arguments.sets):
        stamp_ns = time.time_ns()
        odometry = geometry.transform((_SPEED * step / arguments.rate, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
        poses.publish(TFMessage(transforms=[transform_to_message(odometry, rig.fixed_frame, rig.base_frame, stamp_ns)]))
        for index, message in enumerate(messages):
            calibrations[index].header.stamp = message.header.stamp = stamp_from_ns(stamp_ns)
            infos[index].publish(calibrations[index])
            images[index].publish(message)
        time.sleep(max(0.0, begin + (step + 1) / arguments.rate - time.monotonic()))
    time.sleep(_DISCOVERY_S)
    node.destroy_node()
    rclpy.shutdown()
    return 0


def _message(arguments: argparse.Namespace, index: int, frame_id: str) -> Image | CompressedImage:
    width, height = arguments.size
    image, header = picture(width, height, index), header_of(0, frame_id)
    if arguments.raw:
        return image_to_message(image, header)
    return jpeg_to_message(cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))[1].tobytes(), header)


@dataclass
class _Listener:
    """What the node said: its statuses, when they came, and the CPU seconds that it had used by then."""

    statuses: list[DetectorStatus] = field(default_factory=list)
    heard_at: list[float] = field(default_factory=list)  # time.time()
    cpu_s: list[float] = field(default_factory=list)


def _listen(arguments: argparse.Namespace, log: Path) -> _Listener:
    rclpy.init()
    node, listener = Node("benchmark_listener"), _Listener()
    try:
        with ChildProcess("the detector", _node_command(arguments), log) as detector:

            def note(status: DetectorStatus) -> None:
                listener.statuses.append(status)
                listener.heard_at.append(time.time())
                listener.cpu_s.append(_cpu_s(detector.pid))

            node.create_subscription(DetectorStatus, topics.resolved(topics.STATUS), note, 100)
            with ChildProcess("the cameras", _camera_command(arguments)) as cameras:
                while cameras.status is None and detector.status is None:
                    rclpy.spin_once(node, timeout_sec=0.2)
            quiet_since = time.time()
            while detector.status is None and time.time() - max([quiet_since, *listener.heard_at[-1:]]) < _SILENCE_S:
                rclpy.spin_once(node, timeout_sec=0.2)
            if detector.status is not None:
                raise ValueError(f"the node ended before its work was done:\n{detector.log_tail()}")
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return listener


def _node_command(arguments: argparse.Namespace) -> list[str]:
    rig = _rig(arguments)
    trained = arguments.weights or model_file(arguments.model).suffix == ".safetensors"
    parameters = {
        **{name: f"'{getattr(arguments, name)}'" for name in ("model", "weights", "device", "precision")},
        "rig": "nuscenes" if arguments.raw else "nuscenes_compressed",
        "score_threshold": "0.2" if trained else "0.0",  # random scores are low
        **{f"cameras.{camera.name}.exposure_offset_ms": "0.0" for camera in rig.cameras},
    }
    words = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
    return [sys.executable, "-m", "bevformer_ros.ros.node.detector_node", "--ros-args", *words]


def _camera_command(arguments: argparse.Namespace) -> list[str]:
    values = {"sets": arguments.sets, "rate": arguments.rate, "size": "{}x{}".format(*arguments.size)}
    words = [f"--{name}={value}" for name, value in values.items()] + ["--raw"] * arguments.raw
    return [sys.executable, "-m", "bevformer_ros.commands.cli", "benchmark-node", "--publish", *words]


def _cpu_s(pid: int) -> float:
    """CPU seconds of a process so far."""
    after_name = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def report(arguments: argparse.Namespace, listener: _Listener) -> int:
    """Print the figures, the first sets left out; exit status 1 where too little was detected to say anything."""
    kind = "raw" if arguments.raw else "JPEG"
    width, height = arguments.size
    print(f"{arguments.model}, {arguments.precision}; {kind} {width} x {height} at {arguments.rate:g} Hz")
    done = [index for index, status in enumerate(listener.statuses) if status.latencies][_WARM_UP_SETS:]
    last = listener.statuses[-1] if listener.statuses else DetectorStatus()
    dropped = {entry.reason: entry.count for entry in last.sets_dropped}
    print(f"sets         {last.sets_processed} of {arguments.sets} detected in, dropped: {dropped or 'none'}")
    if len(done) < 2:
        print("too few to measure", file=sys.stderr)
        return 1
    first, end = done[0], done[-1]
    seconds, cpu_s = (values[end] - values[first] for values in (listener.heard_at, listener.cpu_s))
    print(f"rate         {(len(done) - 1) / seconds:.1f} sets a second")
    print(f"CPU          {1000 * cpu_s / (len(done) - 1):.0f} ms per set, {100 * cpu_s / seconds:.0f} % of a core")
    latencies = {
        "from image to status": [
            1e3 * (listener.heard_at[index] - stamp_to_ns(listener.statuses[index].header.stamp) / SECOND_NS)
            for index in done
        ],
        "from last image to boxes": [listener.statuses[index].total_latency_ms for index in done],
    }
    for index in done:
        for entry in listener.statuses[index].latencies:
            latencies.setdefault(entry.stage, []).append(entry.milliseconds)
    print(f"  {'ms':<26}{'median':>8}{'p95':>8}{'p99':>8}")
    for name, values in latencies.items():
        print(f"  {name:<26}" + "".join(f"{value:>8.1f}" for value in np.percentile(values, (50, 95, 99))))
    return 0
