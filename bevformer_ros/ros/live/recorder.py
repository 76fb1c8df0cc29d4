"""Stores topics as they arrive, untouched, in a bag, until it is interrupted."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rclpy
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.executors import SingleThreadedExecutor
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
_FLUSH_PERIOD_S = 1.0  # what is lost at most where the process is killed
_MOST_BEFORE_CLOCK = 64 * 2**20  # bytes
_PATIENCE_S = 0.2  # after which a request to end is noticed


class BagRecorder:
    """Subscribes to each topic once somebody publishes it, asking for no more than its publishers offer.

    Messages are stamped with the node's clock on arrival. Under use_sim_time those that come before the first
    /clock wait for it, up to a limit but for latched ones. lost: messages that DDS reports as missed, per topic.
    """

    def __init__(self, node: Node, bag: BagWriter, topics: Sequence[str]) -> None:
        self.lost: Counter[str] = Counter()
        self._node, self._bag = node, bag
        self._wanted = list(dict.fromkeys(topics))
        self._subscriptions: dict[str, Subscription] = {}
        self._latched: set[str] = set()
        self._before_clock: list[tuple[str, str, bytes]] = []
        self._bytes_before_clock = self._too_early = 0
        self._asked_for_clock = False
        wall = rclpy.clock.Clock()
        self._timers = (
            node.create_timer(_DISCOVERY_PERIOD_S, self._discover, clock=wall),
            node.create_timer(_FLUSH_PERIOD_S, self._flush, clock=wall),
        )
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
        if latched:
            self._latched.add(topic)
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
            self._keep_until_clock(topic, type_name, data)
            return
        self._store_waiting(now_ns)
        self._bag.write_raw(topic, type_name, data, now_ns)

    def _keep_until_clock(self, topic: str, type_name: str, data: bytes) -> None:
        if topic not in self._latched:
            if self._bytes_before_clock + len(data) > _MOST_BEFORE_CLOCK:
                self._too_early += 1
                return
            self._bytes_before_clock += len(data)
        self._before_clock.append((topic, type_name, data))

    def _flush(self) -> None:
        self._bag.flush()
        if self._before_clock and not self._asked_for_clock:
            self._asked_for_clock = True
            print(
                "nobody publishes /clock, by which --use-sim-time stamps: messages wait for it, and those beyond "
                f"{_MOST_BEFORE_CLOCK // 2**20} MiB are dropped",
                flush=True,
            )

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
        if self._too_early:
            lines.append(f"{self._too_early} messages were dropped before the first /clock")
        return "\n".join(lines)


@contextmanager
def _request_to_end() -> Iterator[threading.Event]:
    """Set by SIGINT and SIGTERM, which so break nothing off half-way."""
    asked = threading.Event()
    handlers = {number: signal.signal(number, lambda *_: asked.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def record(path: Path, topics: Sequence[str], storage: Storage = "mcap", use_sim_time: bool = False) -> None:
    """Record in a node of its own, `bag_recorder`, until SIGINT or SIGTERM.

    Raises ValueError for names of topics that are not absolute, OSError where the disk takes no more."""
    strangers = [topic for topic in topics if not topic.startswith("/")]
    if strangers:
        raise ValueError(f"topic {strangers[0]!r} is not absolute; begin it with /")
    with _request_to_end() as asked_to_end, BagWriter(path, storage) as bag:
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        node = rclpy.create_node(
            "bag_recorder",
            start_parameter_services=False,
            parameter_overrides=[Parameter("use_sim_time", Parameter.Type.BOOL, use_sim_time)],
        )
        try:
            recorder = BagRecorder(node, bag, topics)
            executor = SingleThreadedExecutor()
            executor.add_node(node)
            while not asked_to_end.is_set():
                executor.spin_once(_PATIENCE_S)
            recorder.finish()
            print(recorder.report(), flush=True)
        finally:
            node.destroy_node()
            rclpy.try_shutdown()
