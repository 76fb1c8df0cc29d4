from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="needs the ROS environment that `make test` makes")

import rclpy
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import Header

from bevformer_ros.ros.node.qos import fault, publisher_overrides, subscription_overrides

TOPIC = "/front/jpeg"
DEPTH = f"qos_overrides.{TOPIC}.subscription.depth"


@pytest.fixture
def make_node():
    context = rclpy.Context()
    rclpy.init(context=context)
    nodes = []

    def make(**values):
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        nodes.append(Node("qos", context=context, parameter_overrides=overrides))
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)


def subscribed(node, topic, depth):
    profile = QoSProfile(depth=depth, reliability=ReliabilityPolicy.BEST_EFFORT)
    overrides = subscription_overrides(node, topic)
    return node.create_subscription(Header, topic, lambda message: None, profile, qos_overriding_options=overrides)


def test_without_overrides_a_later_activation_may_differ(make_node):
    node = make_node()
    assert [subscribed(node, TOPIC, depth).qos_profile.depth for depth in (3, 4)] == [3, 4]
    assert not node.has_parameter(DEPTH)


def test_an_override_holds_in_every_activation(make_node):
    node = make_node(**{DEPTH: 7})
    for depth in (3, 4):
        found = subscribed(node, TOPIC, depth).qos_profile
        assert (found.depth, found.reliability) == (7, ReliabilityPolicy.BEST_EFFORT)
    assert subscribed(node, "/other", 3).qos_profile.depth == 3


def test_names_are_those_on_the_graph(make_node):
    """Relative and private ones are resolved before."""
    name = "qos_overrides./qos/image.subscription.reliability"
    node = make_node(**{name: "reliable"})
    assert subscribed(node, "~/image", 3).qos_profile.reliability == ReliabilityPolicy.RELIABLE


def test_publishers(make_node):
    node = make_node(**{"qos_overrides./boxes.publisher.reliability": "best_effort"})
    made = node.create_publisher(Header, "/boxes", QoSProfile(depth=5), qos_overriding_options=publisher_overrides())
    (info,) = node.get_publishers_info_by_topic("/boxes")
    assert info.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
    assert node.get_parameter("qos_overrides./boxes.publisher.depth").value == 5
    node.destroy_publisher(made)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("qos_overrides./a.subscription.history", None, ""),
        ("qos_overrides./a.publisher.depth", 1, ""),
        ("qos_overrides./a.publisher.depth", 0, "is 0, expected 1 or more"),
        ("qos_overrides./a.publisher.reliability", "reliable", ""),
        ("qos_overrides./a.publisher.reliability", "yes", "is 'yes', expected one of best_effort, reliable"),
        ("qos_overrides./a.publisher.history", "", "is '', expected one of keep_last, keep_all"),
    ],
)
def test_values(name, value, expected):
    assert fault(name, value).removeprefix(f"{name} ") == expected
