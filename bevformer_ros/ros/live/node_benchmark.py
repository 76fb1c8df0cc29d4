"""The whole node, fed by six cameras over DDS: rate, drops, latency, CPU, by stage.

Three processes as on a car: one publishes for all cameras, one is the node, and we listen to its status.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from threading import Event

import cv2
import numpy as np
import rclpy
from bevformer_ros.msg import DetectorStatus
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from bevformer_ros import geometry
from bevformer_ros.benchmarks.frames import JPEG_QUALITY, picture
from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.inference.exported_model import ExportedModel
from bevformer_ros.resources import config_file, model_file
from bevformer_ros.ros import topics
from bevformer_ros.ros.bag.simulated_drive import cameras_of, static_transforms
from bevformer_ros.ros.conversions import (
    camera_info,
    header_of,
    image_to_message,
    jpeg_to_message,
    stamp_from_ns,
    stamp_to_ns,
    transform_to_message,
)
from bevformer_ros.ros.live.child_process import ChildProcess
from bevformer_ros.ros.live.demo import prepare_environment
from bevformer_ros.ros.node.settings import Settings
from bevformer_ros.types import SECOND_NS

_START_TIMEOUT_S = 180.0  # for loading and warming up a large network
_DISCOVERY_S = 1.0
_SILENCE_S = 3.0  # after the last image, without news from the node: nothing more will come
_WARM_UP_SETS = 10
_SPEED = 10.0  # m/s, straight ahead


@dataclass(frozen=True)
class NodeLoad:
    """What the node runs, and what it is fed with."""

    model: str
    weights: str = ""
    backend: str = Settings.backend
    device: str = Settings.device
    precision: str = Settings.precision
    sets: int = 200
    """Sets of images to publish."""
    rate: float = 10.0
    """Sets a second."""
    size: tuple[int, int] = (1600, 900)
    """Width and height of the images."""
    raw: bool = False
    """Publish sensor_msgs/Image instead of JPEGs."""

    def __post_init__(self) -> None:
        if self.sets <= _WARM_UP_SETS:
            raise ValueError(f"sets is {self.sets}, expected more than {_WARM_UP_SETS}, which are left out")

    @property
    def rig_name(self) -> str:
        return "nuscenes" if self.raw else "nuscenes_compressed"

    @property
    def rig(self) -> RigConfig:
        return load_yaml(RigConfig, config_file("rigs", self.rig_name))


@dataclass(frozen=True)
class NodeFigures:
    """Milliseconds of all sets but the first ones; rate and CPU time over the same."""

    processed: int
    dropped: dict[str, int]
    sets_per_second: float
    cpu_ms_per_set: float
    cpu_share: float
    latencies_ms: dict[str, list[float]]

    def table(self, load: NodeLoad) -> str:
        kind = "raw" if load.raw else "JPEG"
        width, height = load.size
        lines = [
            f"{load.model}, {load.backend}, {load.precision}; {kind} {width} x {height} at {load.rate:g} Hz",
            f"sets         {self.processed} of {load.sets} detected in, dropped: {self.dropped or 'none'}",
            f"rate         {self.sets_per_second:.1f} sets a second",
            f"CPU          {self.cpu_ms_per_set:.0f} ms per set, {100 * self.cpu_share:.0f} % of a core",
            f"  {'ms':<26}{'median':>8}{'p95':>8}{'p99':>8}",
        ]
        for name, values in self.latencies_ms.items():
            lines.append(f"  {name:<26}" + "".join(f"{value:>8.1f}" for value in np.percentile(values, (50, 95, 99))))
        return "\n".join(lines)


def measure(load: NodeLoad) -> NodeFigures:
    """Raises ValueError, with the node's log, where too few sets were detected in to say anything."""
    prepare_environment()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "detector.log"
        listener = _Listener()
        listen(load, log, listener.note)
        return _figures(listener, log)


def _publish(load: NodeLoad) -> None:
    """Sets of images stamped with the time at which they are sent, all cameras at once, with calibration and poses."""
    rig = load.rig
    cameras = cameras_of(rig, load.size)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one ends it
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = Node("benchmark_cameras")
    kind, qos = Image if load.raw else CompressedImage, QoSProfile(depth=5)
    images = [node.create_publisher(kind, camera.image_topic, qos) for camera in rig.cameras]
    infos = [node.create_publisher(CameraInfo, camera.camera_info_topic, qos) for camera in rig.cameras]
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    poses, mounts = (
        node.create_publisher(TFMessage, "/tf", 100),
        node.create_publisher(TFMessage, "/tf_static", latched),
    )
    mounts.publish(static_transforms(rig, cameras))
    messages = [_message(load, index, camera.name) for index, camera in enumerate(cameras)]
    calibrations = [
        camera_info(header_of(0, camera.name), (camera.height, camera.width), camera.intrinsics) for camera in cameras
    ]
    give_up = time.monotonic() + _START_TIMEOUT_S
    while not all(publisher.get_subscription_count() for publisher in (poses, mounts, *images)):
        if time.monotonic() > give_up:
            raise TimeoutError(f"no node subscribed within {_START_TIMEOUT_S:.0f} s")
        time.sleep(0.05)
    time.sleep(_DISCOVERY_S)  # the subscriber's side has to know too
    begin = time.monotonic()
    for step in range(load.sets):
        stamp_ns = time.time_ns()
        odometry = geometry.transform((_SPEED * step / load.rate, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
        poses.publish(TFMessage(transforms=[transform_to_message(odometry, rig.fixed_frame, rig.base_frame, stamp_ns)]))
        for index, message in enumerate(messages):
            calibrations[index].header.stamp = message.header.stamp = stamp_from_ns(stamp_ns)
            infos[index].publish(calibrations[index])
            images[index].publish(message)
        time.sleep(max(0.0, begin + (step + 1) / load.rate - time.monotonic()))
    time.sleep(_DISCOVERY_S)
    node.destroy_node()
    rclpy.shutdown()


def _message(load: NodeLoad, index: int, frame_id: str) -> Image | CompressedImage:
    width, height = load.size
    image, header = picture(width, height, index), header_of(0, frame_id)
    if load.raw:
        return image_to_message(image, header)
    return jpeg_to_message(cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))[1].tobytes(), header)


@dataclass
class _Listener:
    """What the node said: its statuses, when they came, and the CPU seconds that it had used by then."""

    statuses: list[DetectorStatus] = field(default_factory=list)
    heard_at: list[float] = field(default_factory=list)  # time.time()
    cpu_s: list[float] = field(default_factory=list)

    def note(self, status: DetectorStatus, pid: int) -> None:
        self.statuses.append(status)
        self.heard_at.append(time.time())
        self.cpu_s.append(_cpu_s(pid))


def listen(load: NodeLoad, log: Path, note: Callable[[DetectorStatus, int], None]) -> None:
    """Feed a node until all sets are published and it falls silent; note(status, pid of the node) is called per set.

    Raises ValueError, with the node's last words, where it ends before.
    """
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node, heard_at, hears = Node("benchmark_listener"), [time.time()], Event()
    try:
        with ChildProcess("the detector", _node_command(load), log) as detector:

            def hear(status: DetectorStatus) -> None:
                hears.set()
                if status.event == DetectorStatus.SET:
                    heard_at[0] = time.time()
                    note(status, detector.pid)

            node.create_subscription(DetectorStatus, topics.resolved(topics.STATUS), hear, 100)
            give_up = time.monotonic() + _START_TIMEOUT_S
            while not hears.is_set() and detector.status is None and time.monotonic() < give_up:
                rclpy.spin_once(node, timeout_sec=0.2)  # an active node speaks without images too
            cameras = get_context("spawn").Process(target=_publish, args=(load,), daemon=True)
            cameras.start()
            while cameras.is_alive() and detector.status is None:
                rclpy.spin_once(node, timeout_sec=0.2)
            quiet_since = time.time()
            while detector.status is None and time.time() - max(quiet_since, heard_at[0]) < _SILENCE_S:
                rclpy.spin_once(node, timeout_sec=0.2)
            if detector.status is not None:
                raise ValueError(f"the node ended before its work was done:\n{detector.log_tail()}")
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


def _node_command(load: NodeLoad) -> list[str]:
    parameters = {
        **{name: f"'{getattr(load, name)}'" for name in ("model", "weights", "backend", "device", "precision")},
        "rig": load.rig_name,
        "score_threshold": "0.2" if _is_trained(load) else "0.0",  # random scores are low
        **{f"cameras.{camera.name}.exposure_offset_ms": "0.0" for camera in load.rig.cameras},
    }
    words = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
    return [sys.executable, "-m", "bevformer_ros.ros.node.process", "--ros-args", *words]


def _is_trained(load: NodeLoad) -> bool:
    if load.backend == "onnxruntime":
        return ExportedModel.read(Path(load.model)).trained
    return bool(load.weights) or model_file(load.model).suffix == ".safetensors"


def _cpu_s(pid: int) -> float:
    """CPU seconds of a process so far."""
    after_name = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def _figures(listener: _Listener, log: Path) -> NodeFigures:
    statuses = listener.statuses
    done = [index for index, status in enumerate(statuses) if status.latencies][_WARM_UP_SETS:]
    last = statuses[-1] if statuses else DetectorStatus()
    dropped = {entry.reason: entry.count for entry in last.sets_dropped}
    if len(done) < 2:
        raise ValueError(
            f"too few sets to measure: {last.sets_processed} detected in, dropped {dropped or 'none'}; the node said:\n"
            + log.read_text(encoding="utf-8")
        )
    seconds, cpu_s = (values[done[-1]] - values[done[0]] for values in (listener.heard_at, listener.cpu_s))
    latencies = {
        "from image to status": [
            1e3 * (listener.heard_at[index] - stamp_to_ns(statuses[index].header.stamp) / SECOND_NS) for index in done
        ],
        "from last image to boxes": [statuses[index].total_latency_ms for index in done],
    }
    for index in done:
        for entry in statuses[index].latencies:
            latencies.setdefault(entry.stage, []).append(entry.milliseconds)
    steps = len(done) - 1
    return NodeFigures(last.sets_processed, dropped, steps / seconds, 1000 * cpu_s / steps, cpu_s / seconds, latencies)
