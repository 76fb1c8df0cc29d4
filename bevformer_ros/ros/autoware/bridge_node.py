"""The executable autoware_bridge: what the detector publishes, in Autoware's messages."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import fields
from typing import Any
from uuid import UUID, uuid4

import rclpy
from bevformer_ros.msg import DetectionKinematicsArray
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from vision_msgs.msg import Detection3DArray

from bevformer_ros.inference.history import HistoryConfig
from bevformer_ros.ros.conversions import stamp_to_ns
from bevformer_ros.ros.stamped_pairs import StampedPairs
from bevformer_ros.types import SECOND_NS

try:
    from autoware_perception_msgs.msg import DetectedObjects, TrackedObjects

    from bevformer_ros.ros.autoware.objects import Uncertainty, detected_objects, tracked_objects
except ModuleNotFoundError as error:
    raise SystemExit(
        f"autoware_bridge: needs the ROS package {error.name}; install Autoware's messages, for example "
        "ros-$ROS_DISTRO-autoware-perception-msgs, or source the workspace that builds them"
    ) from error

BASE_LINK = "base_link"
STATIONARY_BELOW_MPS = 0.5
_DEPTH = 10
_LOG_INTERVAL_S = 5.0
_DESCRIPTIONS = {
    "position_std_m": "standard deviation of a detection's position across the line of sight, by class",
    "depth_std_share": "what comes to it along the line of sight, as a share of the range, by class",
    "velocity_std_mps": "standard deviation of a detection's velocity, by class",
    "yaw_std_rad": "standard deviation of a detection's heading, by class",
    "z_std_m": "standard deviation of the height of a detection's centre",
    "stationary_below_mps": "a track that is slower is stationary",
}


class Runs:
    """Names each run of a detector, which counts its tracks from 1: after a pause or a jump back none goes on."""

    def __init__(self) -> None:
        self._run = uuid4()
        self._stamp_ns: int | None = None

    def of(self, stamp_ns: int) -> UUID:
        """The run that tracks of this stamp belong to, asked for one stamp after the other."""
        longest_ns = HistoryConfig.maximum_gap_s * SECOND_NS
        if self._stamp_ns is not None and not 0 <= stamp_ns - self._stamp_ns <= longest_ns:
            self._run = uuid4()
        self._stamp_ns = stamp_ns
        return self._run


class AutowareBridge(Node):
    """Joins boxes and kinematics of the same stamp. A message that cannot be translated is left out and logged."""

    def __init__(self) -> None:
        super().__init__("autoware_bridge")
        default = Uncertainty()
        names = [entry.name for entry in fields(Uncertainty)]
        values = {name: self._parameter(name, getattr(default, name)) for name in names}
        self._uncertainty = Uncertainty(**values)
        self._stationary_below_mps = self._parameter("stationary_below_mps", STATIONARY_BELOW_MPS)
        self._runs = Runs()
        self._detected = self.create_publisher(DetectedObjects, "~/output/detected_objects", _DEPTH)
        self._tracked = self.create_publisher(TrackedObjects, "~/output/tracked_objects", _DEPTH)
        self._join("~/input/detections", "~/input/kinematics", self._on_detections)
        self._join("~/input/tracks", "~/input/track_kinematics", self._on_tracks)

    def _parameter(self, name: str, default: Any) -> Any:
        descriptor = ParameterDescriptor(description=_DESCRIPTIONS[name], read_only=True)
        value = self.declare_parameter(name, default, descriptor).value
        return tuple(value) if isinstance(default, tuple) else value

    def _join(self, topic: str, kinematics_topic: str, callback: Callable[[Any, Any], None]) -> None:
        pairs = StampedPairs(callback)
        self.create_subscription(Detection3DArray, topic, pairs.add_first, _DEPTH)
        self.create_subscription(DetectionKinematicsArray, kinematics_topic, pairs.add_second, _DEPTH)

    def _on_detections(self, boxes: Detection3DArray, kinematics: DetectionKinematicsArray) -> None:
        self._translate(boxes, lambda: self._detected.publish(detected_objects(boxes, kinematics, self._uncertainty)))

    def _on_tracks(self, tracks: Detection3DArray, kinematics: DetectionKinematicsArray) -> None:
        run = self._runs.of(stamp_to_ns(tracks.header.stamp))
        self._translate(
            tracks,
            lambda: self._tracked.publish(tracked_objects(tracks, kinematics, run, self._stationary_below_mps)),
        )

    def _translate(self, boxes: Detection3DArray, publish: Callable[[], None]) -> None:
        try:
            if boxes.header.frame_id != BASE_LINK:
                raise ValueError(
                    f"boxes are in {boxes.header.frame_id!r}, Autoware wants them in {BASE_LINK!r}; set the detector's "
                    "parameter output_frame to it"
                )
            publish()
        except ValueError as error:
            self.get_logger().error(f"message left out: {error}", throttle_duration_sec=_LOG_INTERVAL_S)


def main() -> int:
    """Entry point of the executable `autoware_bridge`."""
    rclpy.init()
    try:
        rclpy.spin(AutowareBridge())
    except ValueError as error:
        print(f"autoware_bridge: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
