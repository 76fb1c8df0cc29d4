from __future__ import annotations

import weakref

import pytest

pytest.importorskip("vision_msgs.msg", reason="needs the ROS environment that `make test` makes")

import rclpy
from rclpy.lifecycle import TransitionCallbackReturn
from support import SMALLEST

from bevformer_ros.ros.node.detector_node import DetectorNode


@pytest.fixture
def node():
    rclpy.init(args=["--ros-args", "-p", f"model:={SMALLEST}", "-p", "device:=cpu"])
    made = DetectorNode()
    yield made
    made.close()
    rclpy.shutdown()


def test_deactivating_frees_the_network(node):
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    detector = weakref.ref(node._session.detector)
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert detector() is None
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    assert node.get_parameters_by_prefix("cameras"), "they may be changed before the node is configured again"
