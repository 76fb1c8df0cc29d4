"""The cameras of a running graph."""

from __future__ import annotations

import time

import rclpy
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

from bevformer_ros.ros.message_bytes import message_class
from bevformer_ros.ros.rig_survey import SURVEYED_TYPES, RigSurvey

_DISCOVERY_PERIOD_S = 0.2
_QUEUE = 100


class _Listener:
    """Subscribes to every topic of the types that a survey wants, as it appears."""

    def __init__(self, node: Node, survey: RigSurvey) -> None:
        self._node, self._survey = node, survey
        self._topics: set[str] = set()
        self._timer = node.create_timer(_DISCOVERY_PERIOD_S, self._discover)
        self._discover()

    def _discover(self) -> None:
        for topic, types in self._node.get_topic_names_and_types():
            wanted = [kind for kind in types if kind in SURVEYED_TYPES]
            if wanted and topic not in self._topics and self._node.count_publishers(topic):
                self._topics.add(topic)
                self._subscribe(topic, wanted[0])

    def _subscribe(self, topic: str, type_name: str) -> None:
        offered = [entry.qos_profile for entry in self._node.get_publishers_info_by_topic(topic)]
        latched = all(profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for profile in offered)
        self._node.create_subscription(
            message_class(type_name),
            topic,
            lambda message: self._survey.note(topic, type_name, message),
            QoSProfile(
                depth=_QUEUE,
                reliability=ReliabilityPolicy.RELIABLE if latched else ReliabilityPolicy.BEST_EFFORT,
                durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
            ),
        )


def survey_of_graph(seconds: float) -> RigSurvey:
    """From what arrives within some seconds, in a node of its own, `rig_survey`."""
    survey = RigSurvey()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("rig_survey", start_parameter_services=False)
    try:
        listener = _Listener(node, survey)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            rclpy.spin_once(node, timeout_sec=max(0.0, deadline - time.monotonic()))
        del listener
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return survey
