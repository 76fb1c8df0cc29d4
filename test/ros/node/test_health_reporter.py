"""What the ROS graph tells, with real nodes."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import pytest

pytest.importorskip("sensor_msgs.msg", reason="needs the ROS environment that `make test` makes")

import rclpy
from rclpy.lifecycle import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from support import REPOSITORY, wait_until

from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.ros.node.camera_health import Level
from bevformer_ros.ros.node.health_reporter import HealthReporter

RIG = load_yaml(RigConfig, REPOSITORY / "config" / "rigs" / "nuscenes.yaml")
FRONT = replace(RIG, cameras=RIG.cameras[:1])
TOPIC = RIG.cameras[0].image_topic
NUMBERS = count()
RELIABLE = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


@pytest.fixture
def graph():
    """A reporter, and a node that publishes beside it."""
    contexts = [rclpy.Context(), rclpy.Context()]
    for context in contexts:
        rclpy.init(context=context)
    name = f"reporting_{next(NUMBERS)}"  # those of other tests are forgotten late
    node, other = Node(name, context=contexts[0]), rclpy.create_node("camera", context=contexts[1])
    yield HealthReporter(node, FRONT), node, other
    node.destroy_node()
    other.destroy_node()
    for context in contexts:
        rclpy.shutdown(context=context)


@pytest.mark.parametrize(
    ("kind", "topic", "offered", "wanted", "text"),
    [
        (Image, "/cam_frnt/image_raw", RELIABLE, BEST_EFFORT, "nearest of its kind: /cam_frnt/image_raw"),
        (CompressedImage, TOPIC, RELIABLE, BEST_EFFORT, "cameras.CAM_FRONT.compressed to true"),
        (Image, TOPIC, BEST_EFFORT, RELIABLE, "set image_reliability to best_effort"),
        (Image, TOPIC, BEST_EFFORT, BEST_EFFORT, ""),
    ],
)
def test_what_the_graph_tells_of_a_mute_topic(graph, kind, topic, offered, wanted, text):
    reporter, node, other = graph
    other.create_publisher(kind, topic, offered)
    wait_until(lambda: node.count_publishers(topic), "the publisher to be discovered")
    fault = reporter._ask_graph([("CAM_FRONT", TOPIC)], {TOPIC: wanted}).get(TOPIC, "")
    assert bool(fault) == bool(text)
    assert text in fault


def test_another_node_of_the_same_name_is_noticed(graph):
    reporter, node, other = graph
    assert reporter._surroundings(1.0) == []
    twin = rclpy.create_node(node.get_name(), context=other.context)
    seconds = count(2)
    wait_until(lambda: reporter._surroundings(next(seconds)), "the other node to be discovered")
    assert [problem.code for problem in reporter._surroundings(next(seconds))] == ["double_name"]
    twin.destroy_node()


def test_the_loss_of_a_gpu_is_said_at_once_and_waited_for(graph):
    """Though the level was ERROR before, and the last diagnostics are not a second old."""
    reporter, *_ = graph
    done = []

    def publish(message):
        done.append(f"{message.status[0].values[0].value} {message.status[0].level}")

    reporter._publisher = SimpleNamespace(
        publish=publish, wait_for_all_acked=lambda timeout: done.append("acknowledged")
    )
    for reason in ("", "CUDA error: first", "CUDA error: second"):
        reporter.tick(None, None, reason)
    assert done == 2 * [f"gpu_lost {bytes([Level.ERROR])!r}", "acknowledged"]
