"""Publishes a bag over DDS with /clock, for machines without `ros2 bag play`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import rclpy
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from tqdm import tqdm

from bevformer_ros.ros.bag.files import BagMessage, BagReader, BagTopic
from bevformer_ros.ros.conversions import stamp_from_ns
from bevformer_ros.ros.message_bytes import message_class
from bevformer_ros.types import SECOND_NS

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_CLOCK_PERIOD_NS = SECOND_NS // 100
_POLL_S = 0.02
_SETTLING_S = 1.0
_ACKNOWLEDGEMENT_S = 2.0


@dataclass(frozen=True)
class PlayOptions:
    """How a bag is played."""

    rate: float = 1.0
    """Bag seconds per second."""
    start_offset_s: float = 0.0
    """Seconds of the bag's beginning to leave out, latched messages excepted."""
    lead_s: float = 0.5
    """Seconds of /clock before the first message, for subscribers to connect: DDS drops what reaches them before."""
    loop: bool = False
    """Start again at the end; the clock then steps back."""
    clock: bool = True
    """Publish /clock."""
    wait_for: tuple[str, ...] | None = None
    """Topics that must have subscribers before the first message (default: every image topic)."""
    wait_timeout_s: float = 30.0
    """Seconds after which to give up waiting for subscribers; with 0 nobody is waited for."""
    best_effort_images: bool = False
    """Offer images best effort, as a camera driver would, whatever the bag says."""

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ValueError(f"rate is {self.rate}, expected a positive factor")
        if self.start_offset_s < 0:
            raise ValueError(f"start_offset_s is {self.start_offset_s}, expected 0 or more")
        if self.lead_s < 0:
            raise ValueError(f"lead_s is {self.lead_s}, expected 0 or more")


class BagPlayer:
    """Publishes the messages of an open bag, paced by their stamps; the node needs no executor."""

    def __init__(self, node: Node, bag: BagReader, options: PlayOptions) -> None:
        first_ns = bag.start_ns + round(options.start_offset_s * SECOND_NS)
        if bag.message_count == 0 or first_ns > bag.end_ns:
            seconds = (bag.end_ns - bag.start_ns) / SECOND_NS
            raise ValueError(
                f"{bag.path} has no message after {options.start_offset_s} s; it holds {bag.message_count} messages "
                f"in {seconds:.1f} s"
            )
        self._node, self._bag, self._options, self._first_ns = node, bag, options, first_ns
        self._topics = bag.topics
        self._publishers = {name: self._publisher(node, name, topic) for name, topic in self._topics.items()}
        self._clock = node.create_publisher(Clock, "/clock", 10) if options.clock else None

    def _publisher(self, node: Node, name: str, topic: BagTopic) -> Publisher:
        best_effort = topic.best_effort or (self._options.best_effort_images and topic.type_name in IMAGE_TYPES)
        qos = QoSProfile(
            depth=100 if topic.latched else 10,
            reliability=ReliabilityPolicy.BEST_EFFORT if best_effort else ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if topic.latched else DurabilityPolicy.VOLATILE,
        )
        return node.create_publisher(message_class(topic.type_name), name, qos)

    def wait_for_subscribers(self) -> None:
        """Block until each awaited topic has a subscriber, then for a moment until those of the other topics, so far
        as the graph knows any, are connected too. Raises TimeoutError that names awaited topics without one."""
        awaited = self._options.wait_for
        if awaited is None:
            awaited = tuple(name for name, topic in self._topics.items() if topic.type_name in IMAGE_TYPES)
        strangers = sorted(set(awaited) - set(self._publishers))
        if strangers:
            raise ValueError(f"{self._bag.path} has no topic {', '.join(strangers)} to wait for")
        deadline = time.monotonic() + self._options.wait_timeout_s
        while lonely := [name for name in awaited if self._publishers[name].get_subscription_count() == 0]:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"nobody subscribed to {', '.join(lonely)} within {self._options.wait_timeout_s:g} s; is the "
                    "detector active, in the same ROS_DOMAIN_ID, with these topics? --wait-timeout 0 plays anyway"
                )
            time.sleep(_POLL_S)
        deadline = time.monotonic() + _SETTLING_S
        while not self._is_connected() and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def _is_connected(self) -> bool:
        return all(
            publisher.get_subscription_count() > 0 or self._node.count_subscribers(topic) == 0
            for topic, publisher in self._publishers.items()
        )

    def play(self) -> None:
        """Publish from the start offset to the end, again and again if it loops; /clock then steps back."""
        self._play_once(lead_ns=round(self._options.lead_s * self._options.rate * SECOND_NS))
        while self._options.loop:
            self._play_once(lead_ns=0)
        for publisher in self._publishers.values():
            publisher.wait_for_all_acked(Duration(seconds=_ACKNOWLEDGEMENT_S))

    def _play_once(self, lead_ns: int) -> None:
        clock_ns = max(0, self._first_ns - lead_ns)
        pace = _Pace(clock_ns, self._options.rate)
        for message in self._latched_before_start():
            self._publishers[message.topic].publish(message.data)
        seconds = (self._bag.end_ns - self._first_ns) / SECOND_NS
        with tqdm(total=seconds, desc="playing", unit="s", bar_format=_BAR) as progress:
            for message in self._bag.messages(start_ns=self._first_ns):
                while clock_ns <= message.stamp_ns:
                    pace.wait_until(clock_ns)
                    self._publish_clock(clock_ns)
                    clock_ns += _CLOCK_PERIOD_NS
                pace.wait_until(message.stamp_ns)
                self._publishers[message.topic].publish(message.data)
                progress.update(min((message.stamp_ns - self._first_ns) / SECOND_NS, seconds) - progress.n)

    def _latched_before_start(self) -> Iterator[BagMessage]:
        latched = [name for name, topic in self._topics.items() if topic.latched]
        if latched:
            yield from self._bag.messages(latched, stop_ns=self._first_ns)

    def _publish_clock(self, clock_ns: int) -> None:
        if self._clock is not None:
            self._clock.publish(Clock(clock=stamp_from_ns(clock_ns)))


_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} s [{elapsed}<{remaining}]"


class _Pace:
    """Bag time by the wall clock. Where publishing falls behind it catches up, without skipping."""

    def __init__(self, first_ns: int, rate: float) -> None:
        self._first_ns, self._rate = first_ns, rate
        self._started = time.monotonic()

    def wait_until(self, stamp_ns: int) -> None:
        due = self._started + (stamp_ns - self._first_ns) / SECOND_NS / self._rate
        remaining = due - time.monotonic()
        if remaining > 0:
            time.sleep(remaining)


def play(path: str | Path, options: PlayOptions) -> None:
    """Play a bag in a node of its own, `bag_player`, to its end or a KeyboardInterrupt."""
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("bag_player", start_parameter_services=False)
    try:
        with BagReader(path) as bag:
            player = BagPlayer(node, bag, options)
            if options.wait_timeout_s > 0:
                player.wait_for_subscribers()
            player.play()
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
