from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("vision_msgs.msg", reason="needs the ROS environment that `make test` makes")

import rclpy
from bevformer_ros.msg import DetectorStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from support import wait_until
from vision_msgs.msg import Detection3DArray, LabelInfo
from visualization_msgs.msg import Marker, MarkerArray

from bevformer_ros import geometry
from bevformer_ros.ros.node.outputs import Outputs
from bevformer_ros.taxonomy import NO_ATTRIBUTE
from bevformer_ros.types import SECOND_NS, Detections3D


def boxes(count):
    return Detections3D(
        stamp_ns=7 * SECOND_NS,
        centers=np.tile([0.0, 10.0, 0.0], (count, 1)),
        sizes=np.ones((count, 3)),
        yaws=np.full(count, np.pi / 2),
        velocities=np.zeros((count, 2)),
        scores=np.full(count, 0.5),
        labels=np.zeros(count, np.int64),
        attributes=np.full(count, NO_ATTRIBUTE),
        from_proposal=np.zeros(count, np.bool_),
    )


@pytest.fixture
def node():
    context = rclpy.Context()
    rclpy.init(context=context)
    made = Node("outputs", context=context)
    yield made
    made.destroy_node()
    rclpy.shutdown(context=context)


def test_boxes_and_proposals_in_the_output_frame(node):
    """From the BEV frame (y forward) into a base frame (x forward); markers once somebody listens."""
    outputs = Outputs(node, "base_link")
    received = {name: [] for name in ("detections", "proposals", "markers", "proposal_markers")}
    base_from_bev = geometry.transform_from_rpy((1.0, 0.0, 2.0), (0.0, 0.0, -np.pi / 2))
    detections = replace(boxes(2), proposals=boxes(3))
    node.trigger_configure()
    node.trigger_activate()
    for name, messages in received.items():
        kind = MarkerArray if "markers" in name else Detection3DArray
        node.create_subscription(kind, f"~/{name}", messages.append, 10)
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    wait_until(lambda: node.count_subscribers("/outputs/proposal_markers"), "the subscriptions")

    def arrived():
        outputs.publish_detections(detections, base_from_bev, SECOND_NS // 10, None)
        executor.spin_once(timeout_sec=0.1)
        return all(received.values())

    wait_until(arrived, "all outputs")
    assert [len(received[name][0].detections) for name in ("detections", "proposals")] == [2, 3]
    center = received["detections"][0].detections[0].bbox.center.position
    assert (center.x, center.y, center.z) == pytest.approx((11.0, 0.0, 2.0))
    for name, count in (("markers", 2), ("proposal_markers", 3)):
        cubes = [entry for entry in received[name][0].markers if entry.type == Marker.CUBE]
        assert len(cubes) == count
        assert cubes[0].lifetime.nanosec == SECOND_NS // 4
    executor.shutdown()
    outputs.destroy()


def test_labels_reach_who_comes_later(node):
    outputs = Outputs(node, "base_link")
    node.trigger_configure()
    node.trigger_activate()
    outputs.publish_labels(0.25)
    received = []
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    node.create_subscription(LabelInfo, "~/label_info", received.append, latched)
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)

    def arrived():
        executor.spin_once(timeout_sec=0.1)
        return received

    wait_until(arrived, "the labels")
    assert (len(received[0].class_map), received[0].threshold) == (10, 0.25)
    executor.shutdown()
    outputs.destroy()


def test_who_watches_the_status_is_no_listener(node):
    outputs = Outputs(node, "base_link")
    node.create_subscription(DetectorStatus, "~/status", lambda message: None, 10)
    wait_until(lambda: node.count_subscribers("/outputs/status"), "the subscription")
    assert not outputs.has_listeners()
    node.create_subscription(Detection3DArray, "~/detections", lambda message: None, 10)
    wait_until(outputs.has_listeners, "the other subscription")
    outputs.destroy()
