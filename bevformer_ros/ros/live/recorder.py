"""Stores topics as they arrive, untouched, in a bag, until it is interrupted."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rclpy
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo

from bevformer_ros.ros.bag.files import BagWriter, Storage
from bevformer_ros.ros.message_bytes import message_class

_DISCOVERY_PERIOD_S = 0.1
_QUEUE = 200


class BagRecorder:
    """Subscribes to each topic once somebody publishes it, asking for no more than its publishers offer.

    Messages are stamped with the node's clock on arrival. Under use_sim_time those that come before the first
    /clock wait for it. lost: messages that DDS reports as missed, per topic.
    """

    def __init__(self, node: Node, bag: BagWriter, topics: Sequence[str]) -> None:
        self.lost: Counter[str] = Counter()
        self._node, self._bag = node, bag
        self._wanted = list(dict.fromkeys(topics))
        self._subscriptions: dict[str, Subscription] = {}
        self._before_clock: list[tuple[str, str, bytes]] = []
        self._timer = node.create_timer(_DISCOVERY_PERIOD_S, self._discover, clock=rclpy.clock.Clock())
        self._discover()

    def _discover(self) -> None:
        for topic in self._wanted:
            if topic not in self._subscriptions and (publishers := self._node.get_publishers_info_by_topic(topic)):
                self._subscriptions[topic] = self._subscribe(topic, publishers)

    def _subscribe(self, topic: str, publishers: list[TopicEndpointInfo]) -> Subscription:
        type_name = publishers[0].topic_type
        best_effort = any(entry.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT for entry in publishers)
        latched = all(entry.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for entry in publishers)
        self._bag.add_topic(topic, type_name, latched=latched, best_effort=best_effort)
        print(f"recording {topic} ({type_name})", flush=True)
        return self._node.create_subscription(
            message_class(type_name),
            topic,
            lambda data: self._store(topic, type_name, data),
            QoSProfile(
                depth=_QUEUE,
                reliability=ReliabilityPolicy.BEST_EFFORT if best_effort else ReliabilityPolicy.RELIABLE,
                durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
            ),
            raw=True,
            event_callbacks=SubscriptionEventCallbacks(message_lost=lambda event: self._count_lost(topic, event)),
        )

    def _count_lost(self, topic: str, event: Any) -> None:
        self.lost[topic] += event.total_count_change

    def _store(self, topic: str, type_name: str, data: bytes) -> None:
        now_ns = self._node.get_clock().now().nanoseconds
        if now_ns == 0:
            self._before_clock.append((topic, type_name, data))
            return
        self._store_waiting(now_ns)
        self._bag.write_raw(topic, type_name, data, now_ns)

    def _store_waiting(self, now_ns: int) -> None:
        for topic, type_name, data in self._before_clock:
            self._bag.write_raw(topic, type_name, data, now_ns)
        self._before_clock.clear()

    def finish(self) -> None:
        """Store what still waits for a clock, stamped now."""
        self._store_waiting(self._node.get_clock().now().nanoseconds)

    def report(self) -> str:
        """One line per wanted topic: messages stored, and what is amiss."""
        counts = self._bag.message_counts
        lines = []
        for topic in self._wanted:
            amiss = "" if topic in self._subscriptions else ", nobody published it"
            amiss += f", {self.lost[topic]} lost" if self.lost[topic] else ""
            lines.append(f"{topic}: {counts.get(topic, 0)} messages{amiss}")
        return "\n".join(lines)


def record(path: Path, topics: Sequence[str], storage: Storage = "mcap", use_sim_time: bool = False) -> None:
    """Record in a node of its own, `bag_recorder`, until KeyboardInterrupt.

    Raises ValueError for names of topics that are not absolute."""
    strangers = [topic for topic in topics if not topic.startswith("/")]
    if strangers:
        raise ValueError(f"topic {strangers[0]!r} is not absolute; begin it with /")
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node(
        "bag_recorder",
        start_parameter_services=False,
        parameter_overrides=[Parameter("use_sim_time", Parameter.Type.BOOL, use_sim_time)],
    )
    try:
        with BagWriter(path, storage) as bag:
            recorder = BagRecorder(node, bag, topics)
            with contextlib.suppress(KeyboardInterrupt):
                rclpy.spin(node)
            recorder.finish()
            print(recorder.report(), flush=True)
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
