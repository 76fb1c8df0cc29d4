"""tf2_ros and message_filters over real DDS: contexts in one process, and two processes."""

from __future__ import annotations

import sys
import time as wall_time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from threading import Thread
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy")
pytest.importorskip("tf2_ros")
pytest.importorskip("message_filters")

from builtin_interfaces.msg import Time as TimeMessage
from geometry_msgs.msg import PointStamped
from message_filters import Subscriber
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Header
from tf2_ros import (
    Buffer,
    LookupException,
    StaticTransformBroadcaster,
    TransformBroadcaster,
    TransformListener,
)
from transform_messages import at, stamped, translation_of

pytestmark = pytest.mark.integration

PATIENCE = 30.0
LATEST = Time()


class Party:
    """A node in a context and an executor of its own, as in a process of its own."""

    def __init__(self, name: str, **options) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = Node(name, context=self.context, **options)
        self.executor = SingleThreadedExecutor(context=self.context)

    def spin_until(self, condition: Callable[[], bool], meanwhile: Callable[[], None] = lambda: None) -> None:
        self.executor.add_node(self.node)
        give_up = wall_time.monotonic() + PATIENCE
        while not condition():
            assert wall_time.monotonic() < give_up, f"{self.node.get_name()} waited {PATIENCE} s in vain"
            meanwhile()
            self.executor.spin_once(timeout_sec=0.02)
        self.executor.remove_node(self.node)

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def party() -> Iterator[Callable[..., Party]]:
    parties: list[Party] = []

    def join(name: str, **options) -> Party:
        parties.append(Party(name, **options))
        return parties[-1]

    yield join
    for one in parties:
        one.close()


@contextmanager
def in_the_background(party: Party) -> Iterator[None]:
    def spin() -> None:
        with suppress(ExternalShutdownException):
            party.executor.spin()

    party.executor.add_node(party.node)
    thread = Thread(target=spin)
    thread.start()
    yield
    party.executor.shutdown()
    thread.join()


def test_static_transforms_reach_a_late_joiner_all_of_them(party):
    robot = party("robot")
    broadcaster = StaticTransformBroadcaster(robot.node)
    broadcaster.sendTransform(stamped("base", "left", 1, (1, 0, 0)))
    broadcaster.sendTransform([stamped("base", "right", 1, (2, 0, 0)), stamped("base", "rear", 1, (3, 0, 0))])

    late, buffer = party("late"), Buffer()
    listener = TransformListener(buffer, late.node)
    late.spin_until(lambda: buffer.can_transform("base", "rear", LATEST))
    for child, x in (("left", 1), ("right", 2), ("rear", 3)):
        assert translation_of(buffer.lookup_transform("base", child, at(77))) == (x, 0, 0)
    listener.unregister()


def test_upstream_keeps_the_first_static_transform_sent_for_a_child(party):
    robot = party("robot")
    broadcaster = StaticTransformBroadcaster(robot.node)
    for x in (1, 2):
        broadcaster.sendTransform(stamped("base", "left", 1, (x, 0, 0)))
    late, buffer = party("late"), Buffer()
    listener = TransformListener(buffer, late.node)
    late.spin_until(lambda: buffer.can_transform("base", "left", LATEST))
    assert translation_of(buffer.lookup_transform("base", "left", LATEST)) == (1, 0, 0)
    listener.unregister()


def test_a_listener_fills_its_buffer_from_a_broadcaster(party):
    robot, observer, buffer = party("robot"), party("observer"), Buffer()
    broadcaster = TransformBroadcaster(robot.node)
    listener = TransformListener(buffer, observer.node)
    observer.spin_until(lambda: broadcaster.pub_tf.get_subscription_count() > 0)
    broadcaster.sendTransform(stamped("odom", "base", 1, (1, 0, 0)))
    broadcaster.sendTransform((stamped("odom", "base", 2, (3, 0, 0)), stamped("base", "camera", 2)))
    observer.spin_until(lambda: buffer.can_transform("odom", "camera", at(2)))
    assert translation_of(buffer.lookup_transform("odom", "base", at(1.5))) == (2, 0, 0)
    listener.unregister()


STATIC_PUBLISHER = """
import rclpy
from rclpy.node import Node
from geometry_msgs.msg import TransformStamped
from tf2_ros import StaticTransformBroadcaster

rclpy.init()
node = Node("other_process")
transform = TransformStamped(child_frame_id="camera")
transform.header.frame_id = "base"
transform.transform.translation.z = 1.5
transform.transform.rotation.w = 1.0
StaticTransformBroadcaster(node).sendTransform(transform)
rclpy.spin(node)
"""


def test_transforms_come_from_another_process(party, start_process):
    start_process([sys.executable, "-c", STATIC_PUBLISHER])
    observer, buffer = party("observer"), Buffer()
    listener = TransformListener(buffer, observer.node)
    observer.spin_until(lambda: buffer.can_transform("base", "camera", LATEST))
    assert translation_of(buffer.lookup_transform("base", "camera", LATEST)) == (0, 0, 1.5)
    listener.unregister()


def test_a_listener_with_its_own_thread_ends_a_wait_in_the_main_thread(party):
    robot, observer, buffer = party("robot"), party("observer"), Buffer()
    broadcaster = TransformBroadcaster(robot.node)
    robot.node.create_timer(0.05, lambda: broadcaster.sendTransform(stamped("odom", "base", 1, (4, 0, 0))))
    listener = TransformListener(buffer, observer.node, spin_thread=True)
    with in_the_background(robot):
        found = buffer.lookup_transform("odom", "base", at(1), timeout=Duration(seconds=PATIENCE))
    assert translation_of(found) == (4, 0, 0)
    listener.unregister()
    assert not listener.dedicated_listener_thread.is_alive()


def test_a_wait_inside_a_callback_of_the_listeners_only_executor_runs_out_but_does_not_hang(party):
    robot, observer, buffer = party("robot"), party("observer"), Buffer()
    StaticTransformBroadcaster(robot.node).sendTransform(stamped("base", "camera"))
    outcomes: list[object] = []

    def wait() -> None:
        try:
            outcomes.append(buffer.lookup_transform("base", "camera", LATEST, timeout=Duration(seconds=0.1)))
        except LookupException as error:
            outcomes.append(error)

    timer = observer.node.create_timer(0.001, wait)
    observer.spin_until(lambda: len(outcomes) == 1)
    listener = TransformListener(buffer, observer.node)
    observer.spin_until(lambda: not isinstance(outcomes[-1], LookupException))
    assert isinstance(outcomes[0], LookupException)
    observer.node.destroy_timer(timer)
    listener.unregister()


# --- Time jumps


def simulated(party, name: str) -> Party:
    return party(name, parameter_overrides=[Parameter("use_sim_time", value=True)])


def test_a_backward_jump_of_the_clock_topic_clears_the_buffer(party):
    player, robot = party("player"), simulated(party, "robot")
    clock = player.node.create_publisher(Clock, "/clock", 10)
    buffer = Buffer(node=robot.node)
    buffer.set_transform_static(stamped("base", "camera"), "test")

    def play_until_it_is(second: int) -> None:
        robot.spin_until(
            lambda: robot.node.get_clock().now().nanoseconds == second * 10**9,
            meanwhile=lambda: clock.publish(Clock(clock=TimeMessage(sec=second))),
        )

    play_until_it_is(100)
    buffer.set_transform(stamped("odom", "base", 100), "test")
    play_until_it_is(101)
    assert buffer.can_transform("odom", "camera", at(100))
    play_until_it_is(50)
    assert not buffer.can_transform("odom", "base", LATEST)
    assert buffer.can_transform("base", "camera", LATEST)
    buffer.set_transform(stamped("odom", "base", 50), "test")
    assert buffer.can_transform("odom", "camera", at(50))


@pytest.mark.parametrize(
    ("second", "cleared"), [(100.5, False), (5000, False), (99.5, False), (98.9, True), (0.5, True)]
)
def test_upstream_clears_on_jumps_back_of_a_second_or_more_only(party, second, cleared):
    robot = simulated(party, "robot")
    clock: Any = robot.node.get_clock()
    clock.set_ros_time_override(Time(nanoseconds=100 * 10**9, clock_type=clock.clock_type))
    buffer = Buffer(node=robot.node)
    buffer.set_transform(stamped("odom", "base", 100), "test")
    clock.set_ros_time_override(Time(nanoseconds=round(second * 1e9), clock_type=clock.clock_type))
    assert buffer.can_transform("odom", "base", LATEST) is not cleared


def test_upstream_clears_when_simulated_time_is_switched_on(party):
    robot = party("robot")
    buffer = Buffer(node=robot.node)
    buffer.set_transform(stamped("odom", "base", 100), "test")
    robot.node.set_parameters([Parameter("use_sim_time", value=True)])
    assert not buffer.can_transform("odom", "base", LATEST)


def test_a_buffer_without_a_node_does_not_follow_any_clock(party):
    robot, buffer = simulated(party, "robot"), Buffer()
    clock: Any = robot.node.get_clock()
    buffer.set_transform(stamped("odom", "base", 100), "test")
    for second in (100, 1):
        clock.set_ros_time_override(Time(seconds=second, clock_type=clock.clock_type))
    assert buffer.can_transform("odom", "base", LATEST)


# --- message_filters


def test_subscribers_feed_their_callbacks(party):
    robot, observer = party("robot"), party("observer")
    publisher = robot.node.create_publisher(PointStamped, "a", qos_profile_sensor_data)
    subscriber = Subscriber(observer.node, PointStamped, "a", qos_profile=qos_profile_sensor_data)
    assert (subscriber.getTopic(), subscriber.topic) == ("a", "a")
    seconds: list[int] = []
    subscriber.registerCallback(lambda message, offset: seconds.append(message.header.stamp.sec + offset), 100)
    sent = count(1)
    robot.node.create_timer(0.02, lambda: publisher.publish(PointStamped(header=Header(stamp=at(next(sent)).to_msg()))))
    with in_the_background(robot):
        observer.spin_until(lambda: len(seconds) >= 5)
    assert seconds == sorted(seconds) and seconds[0] > 100
    observer.node.destroy_subscription(subscriber.sub)
