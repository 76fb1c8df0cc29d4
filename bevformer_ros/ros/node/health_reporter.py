"""The health of the node, to /diagnostics, the log and the status: what one assessment says, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.duration import Duration
from rclpy.lifecycle import Node
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible
from sensor_msgs.msg import CameraInfo

from bevformer_ros.config import RigConfig
from bevformer_ros.ros import topics
from bevformer_ros.ros.conversions import header_of
from bevformer_ros.ros.node.camera_health import Level, Problem
from bevformer_ros.ros.node.health import Assessment
from bevformer_ros.ros.node.health_log import HealthLog
from bevformer_ros.ros.node.qos import publisher_overrides
from bevformer_ros.ros.node.session import DetectionSession, image_type
from bevformer_ros.ros.node.topic_check import Expected, Publisher, topic_fault
from bevformer_ros.ros.status import diagnostics_of

TICK_S = 0.25
_DIAGNOSTICS_S = 1.0  # and at once when a level changes
_GRAPH_S = 1.0  # asking the ROS graph costs more than the rest
_IDLE_S = 0.8
_WORTH_TELLING_S = 2.0  # of loading
_CLOCK_STANDS_S = 1.0
_LAST_WORD_S = 0.5
_GPU_REMEDY = (
    "only a new process can use the GPU again, so this one ends with exit status 3: let its supervisor start it anew "
    "(respawn:=true of the launch file); if that does not help, look for the GPU with nvidia-smi and dmesg"
)


class HealthReporter:
    """Call tick() every TICK_S in the node's executor, from configuration on."""

    def __init__(self, node: Node, rig: RigConfig) -> None:
        self._node, self._rig = node, rig
        self._publisher = node.create_publisher(
            DiagnosticArray, topics.DIAGNOSTICS, QoSProfile(depth=10), qos_overriding_options=publisher_overrides()
        )
        self._log = HealthLog()
        self._published_s = self._graph_s = self._names_s = 0.0
        self._namesakes = 0  # other nodes of our name
        self._levels: list[Level] = []
        self._mute: list[tuple[str, str]] = []
        self._topic_faults: dict[str, str] = {}
        self._clock_ns, self._clock_moved_s = 0, time.monotonic()

    def destroy(self) -> None:
        self._node.destroy_publisher(self._publisher)

    def tick(self, session: DetectionSession | None, loading_since_s: float | None, gpu_lost: str) -> None:
        """loading_since_s: when the network began to be loaded, None if it is not being loaded. gpu_lost: why; empty
        where it is not."""
        now_s = time.monotonic()
        surroundings = self._surroundings(now_s)
        if gpu_lost:
            surroundings.append(Problem("", "gpu_lost", Level.ERROR, f"{gpu_lost}; {_GPU_REMEDY}"))
        if session is not None:
            mute = session.health.mute_topics(now_s)
            if mute != self._mute or now_s - self._graph_s >= _GRAPH_S:
                self._mute, self._graph_s = mute, now_s
                self._topic_faults = self._ask_graph(mute, session.qos_by_topic())
            stands = now_s - self._clock_moved_s > _CLOCK_STANDS_S
            assessment = session.health.assess(now_s, self._topic_faults, surroundings, stands)
            session.note_health(assessment)
            is_news = gpu_lost or self._levels_of(assessment) != self._levels
            session.publish_idle(0.0 if is_news else _IDLE_S)
        elif loading_since_s is not None and now_s - loading_since_s > _WORTH_TELLING_S:
            text = f"loading the network, for {now_s - loading_since_s:.0f} s now"
            assessment = Assessment((Problem("", "loading", Level.WARN, text), *surroundings), {})
        elif gpu_lost:
            assessment = Assessment(tuple(surroundings), {})
        else:
            return
        self._write_log(assessment, now_s)
        self._publish(assessment, now_s, at_once=bool(gpu_lost))
        if gpu_lost:  # the process ends after this
            self._publisher.wait_for_all_acked(Duration(seconds=_LAST_WORD_S))

    def _write_log(self, assessment: Assessment, now_s: float) -> None:
        logger = self._node.get_logger()
        for level, line in self._log.lines(assessment.problems, now_s):
            # One call per severity: rclpy lets no call site change its own.
            if level == Level.OK:
                logger.info(line)
            elif level == Level.WARN:
                logger.warning(line)
            else:
                logger.error(line)

    def _levels_of(self, assessment: Assessment) -> list[Level]:
        return [assessment.level, *(assessment.level_of(camera.name) for camera in self._rig.cameras)]

    def _publish(self, assessment: Assessment, now_s: float, at_once: bool) -> None:
        levels = self._levels_of(assessment)
        if levels == self._levels and now_s - self._published_s < _DIAGNOSTICS_S and not at_once:
            return
        self._levels, self._published_s = levels, now_s
        hardware = {camera.name: camera.image_topic for camera in self._rig.cameras}
        message = DiagnosticArray(status=diagnostics_of(assessment, self._node.get_fully_qualified_name(), hardware))
        message.header = header_of(self._node.get_clock().now().nanoseconds, "")
        self._publisher.publish(message)

    def _surroundings(self, now_s: float) -> list[Problem]:
        """What is wrong around the node; also notes whether the clock passes."""
        problems = []
        clock_ns = self._node.get_clock().now().nanoseconds
        if clock_ns != self._clock_ns:
            self._clock_ns, self._clock_moved_s = clock_ns, now_s
        if clock_ns == 0 and now_s - self._clock_moved_s > _CLOCK_STANDS_S:
            text = "use_sim_time is true, but nobody publishes /clock; play the bag with a clock, or set it to false"
            problems.append(Problem("", "no_clock", Level.ERROR, text))
        if now_s - self._names_s >= _GRAPH_S:
            own = self._node.get_name(), self._node.get_namespace()
            self._names_s, self._namesakes = now_s, self._node.get_node_names_and_namespaces().count(own) - 1
        if self._namesakes > 0:
            text = (
                f"another node is called {self._node.get_fully_qualified_name()} too, and publishes on the same "
                "topics; end it, or start this one with another namespace or __node:= name"
            )
            problems.append(Problem("", "double_name", Level.WARN, text))
        return problems

    def _ask_graph(self, mute: Sequence[tuple[str, str]], qos: Mapping[str, QoSProfile]) -> dict[str, str]:
        """What is wrong with topics, each with its camera, on which nothing arrives."""
        if not mute:
            return {}
        graph = self._published_topics()
        cameras = {camera.name: camera for camera in self._rig.cameras}
        faults = {}
        for name, topic in mute:
            is_image = topic == cameras[name].image_topic
            kind = image_type(cameras[name]) if is_image else CameraInfo
            type_name = f"sensor_msgs/msg/{kind.__name__}"
            resolved = self._node.resolve_topic_name(topic)
            expected = Expected(name, "image_topic" if is_image else "camera_info_topic", resolved, type_name)
            fault = topic_fault(expected, self._publishers(resolved, qos[topic]), graph)
            if fault:
                faults[topic] = fault
        return faults

    def _published_topics(self) -> Mapping[str, Sequence[str]]:
        own = f"{self._node.get_fully_qualified_name()}/"
        return {
            topic: kinds
            for topic, kinds in self._node.get_topic_names_and_types()
            if any(kind.startswith("sensor_msgs/") for kind in kinds)
            and not topic.startswith(own)
            and self._node.count_publishers(topic)
        }

    def _publishers(self, topic: str, qos: QoSProfile) -> list[Publisher]:
        found = []
        for info in self._node.get_publishers_info_by_topic(topic):
            compatible, reason = qos_check_compatible(info.qos_profile, qos)
            found.append(Publisher(info.topic_type, reason if compatible == QoSCompatibility.ERROR else ""))
        return found
