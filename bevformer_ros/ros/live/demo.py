"""A simulated drive goes over DDS through the detector and ends in a table and a picture."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import rclpy
from bevformer_ros.msg import DetectorStatus
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.client import Client
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.drawing import write_picture
from bevformer_ros.evaluation.matching import HIT_DISTANCE, Tally, tally
from bevformer_ros.inference.temporal_detector import AnyDetector
from bevformer_ros.resources import (
    DDS_PROFILE_VARIABLE,
    config_file,
    dds_profile,
    process_settings,
)
from bevformer_ros.ros import topics
from bevformer_ros.ros.bag.files import BagReader
from bevformer_ros.ros.bag.pictures import picture, sets, write_animation
from bevformer_ros.ros.bag.results import read_summary
from bevformer_ros.ros.bag.run_summary import Summary
from bevformer_ros.ros.bag.scene import BagScene
from bevformer_ros.ros.bag.simulated_drive import simulate
from bevformer_ros.ros.detector_loading import detector_for
from bevformer_ros.ros.live.child_process import ChildProcess
from bevformer_ros.ros.node.settings import Settings
from bevformer_ros.ros.topics import OUTPUT, OUTPUT_STATUS, TRUTH
from bevformer_ros.simulation.drive import Drive
from bevformer_ros.unfinished import partial_path, remove

NODE = f"/{topics.NODE_NAME}"
RECORDED = (*OUTPUT, OUTPUT_STATUS, topics.resolved(topics.MARKERS))
_START_TIMEOUT_S = 120.0
_MEASURED_SETS = 3
_BAG_SUFFIXES = {".yaml", ".mcap", ".db3"}
_HEADROOM = 1.5  # what a set may take against what the detector alone took
_OVERHEAD_S = 0.1  # decoding six images, publishing and recording
_SILENCE_S = 15.0  # after the bag's end, without news from the detector: nothing more will come
_COMMAND = (sys.executable, "-m", "bevformer_ros")


class _Watch:
    """Sees the detector from outside: its lifecycle state and its status messages."""

    def __init__(self, node: Node) -> None:
        self.sets_counted = 0
        self.heard_at = time.monotonic()
        self._node = node
        self._state: Client = node.create_client(GetState, f"{NODE}/get_state")
        self._status = node.create_subscription(DetectorStatus, OUTPUT_STATUS, self._on_status, 10)

    def _on_status(self, status: DetectorStatus) -> None:
        self.sets_counted = status.sets_processed + sum(entry.count for entry in status.sets_dropped)
        if status.event != DetectorStatus.IDLE:
            self.heard_at = time.monotonic()

    def spin_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            rclpy.spin_once(self._node, timeout_sec=0.1)

    def is_active(self) -> bool:
        if not self._state.service_is_ready():
            return False
        answer = self._state.call_async(GetState.Request())
        rclpy.spin_until_future_complete(self._node, answer, timeout_sec=1.0)
        result = answer.result() if answer.done() else None
        return result is not None and result.current_state.id == State.PRIMARY_STATE_ACTIVE

    def recorder_listens(self) -> bool:
        return self._node.count_subscribers(OUTPUT_STATUS) >= 2  # we are the other one


def demonstrate(out: Path, drive: Drive, settings: Settings) -> tuple[Summary, Tally]:
    """Everything into the folder `out`. Raises RuntimeError with the detector's log where it ends or hangs, and
    ValueError for a model that cannot be loaded."""
    out.mkdir(parents=True, exist_ok=True)
    rig = load_yaml(RigConfig, config_file("rigs", settings.rig))
    drive_bag, result_bag = out / "drive", out / "result"
    for bag in (drive_bag, result_bag):
        _remove_bag(bag)
    _say(f"1/4 simulating {drive.seconds:g} s of driving, {len(rig.cameras)} cameras at {drive.rate:g} Hz")
    simulate(drive_bag, rig, drive)
    detector = detector_for(settings, rig)
    needed = _seconds_per_set(detector, drive_bag, rig)
    speed = min(1.0, 1.0 / (drive.rate * (_HEADROOM * needed + _OVERHEAD_S)))
    _say(f"2/4 starting the detector, model {settings.model}, {needed:.2f} s a set here (log: {out / 'detector.log'})")
    command = _detector_command(settings, detector.trained)
    _run_detector(out, drive_bag, result_bag, len(drive.reference_stamps), command, speed)
    _say("4/4 summing up")
    with BagReader(drive_bag) as played, BagReader(result_bag) as result:
        summary = _summary_of(played, result, rig)
        found = tally(sets(played, result), HIT_DISTANCE)
        write_picture(out / "demo.png", picture(played, result, rig, summary))
        write_animation(out / "demo.webp", played, result, rig, summary)
    return summary, found


def _seconds_per_set(detector: AnyDetector, drive_bag: Path, rig: RigConfig) -> float:
    """What the detector needs on this machine as busy as it is now, by the slower of two sets after a first one."""
    times = []
    with BagReader(drive_bag) as bag:
        scene = BagScene(bag, rig)
        for stamp_ns in scene.stamps(TRUTH.boxes)[:_MEASURED_SETS]:
            frame = scene.frame(stamp_ns)
            start = time.perf_counter()
            detector(frame)
            times.append(time.perf_counter() - start)
    return max(times[1:] or times)


def _remove_bag(path: Path) -> None:
    """Of an earlier demo, also of one that was killed while it recorded. Any other folder stays."""
    if path.is_dir() and all(file.suffix in _BAG_SUFFIXES for file in path.iterdir()):
        shutil.rmtree(path)
    remove(partial_path(path))


def _run_detector(out: Path, drive_bag: Path, result_bag: Path, sets: int, command: list[str], speed: float) -> None:
    """Start a recorder and the detector, play the bag to them, end both: the detector first, so that the recorder
    hears what it has to say at its end."""
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)  # Ctrl-C must end the processes in their order
    node = rclpy.create_node("demo")
    try:
        watch = _Watch(node)
        recorder = [*_COMMAND, "record", *RECORDED, "-o", str(result_bag), "--use-sim-time"]
        with (
            ChildProcess("the recorder", recorder, out / "recorder.log") as recording,
            ChildProcess("the detector", command, out / "detector.log") as detector,
        ):
            _await(watch, detector, watch.is_active, "become active")
            _await(watch, recording, watch.recorder_listens, "listen")
            _say(f"3/4 playing the bag over DDS at {_pace(speed)}")
            _play(watch, drive_bag, detector, speed)
            watch.heard_at = time.monotonic()
            watch.spin_until(
                lambda: (
                    watch.sets_counted >= sets
                    or time.monotonic() - watch.heard_at > _SILENCE_S
                    or detector.status is not None
                )
            )
            if detector.status is not None:
                raise RuntimeError(f"the detector ended before its work was done:\n{detector.log_tail()}")
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


def _pace(speed: float) -> str:
    return "its own pace" if speed == 1.0 else f"{speed:.2f} of its pace"


def _detector_command(settings: Settings, trained: bool) -> list[str]:
    names = ("rig", "model", "weights", "backend")
    parameters = {**{name: getattr(settings, name) for name in names}, "image_reliability": "reliable"}
    overrides = [word for name, value in parameters.items() for word in ("-p", f"{name}:='{value}'")]
    if not trained:  # random scores are low: with any threshold no box would take the way out
        overrides += ["-p", "score_threshold:=0.0"]
    return [
        sys.executable,
        "-m",
        "bevformer_ros.ros.node.process",
        "--ros-args",
        "-p",
        "use_sim_time:=true",
        *overrides,
    ]


def _play(watch: _Watch, bag: Path, detector: ChildProcess, speed: float) -> None:
    with ChildProcess("the player", [*_COMMAND, "play", str(bag), "--rate", f"{speed:.3f}"]) as player:
        watch.spin_until(lambda: player.status is not None or detector.status is not None)
        if player.status not in (0, None):
            raise RuntimeError("the bag could not be played, see above")


def _await(watch: _Watch, process: ChildProcess, condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    watch.spin_until(lambda: process.status is not None or time.monotonic() > deadline or condition())
    if process.status is not None:
        raise RuntimeError(
            f"{process.name} ended with status {process.status} before it could {what}:\n{process.log_tail()}"
        )
    if time.monotonic() > deadline:
        raise RuntimeError(f"{process.name} did not {what} within {_START_TIMEOUT_S:g} s:\n{process.log_tail()}")


def _summary_of(played: BagReader, result: BagReader, rig: RigConfig) -> Summary:
    reference = next(camera for camera in rig.cameras if camera.name == rig.reference_camera)
    return read_summary(result, played.topics[reference.image_topic].message_count)


def _say(text: str) -> None:
    print(text, flush=True)


def prepare_environment() -> None:
    """What every process of the demo inherits, unless the user has set it."""
    os.environ.setdefault(DDS_PROFILE_VARIABLE, str(dds_profile()))
    for variable, value in process_settings().items():
        os.environ.setdefault(variable, value)
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    # A domain of its own keeps the demo's /clock and cameras out of any other ROS on this machine.
    os.environ.setdefault("ROS_DOMAIN_ID", str(40 + os.getpid() % 60))
