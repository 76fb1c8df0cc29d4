"""The launch file by upstream's launch and launch_testing: the node detects, and ends by itself."""

from __future__ import annotations

import unittest

import pytest

pytest.importorskip("launch_testing.actions", reason="needs upstream's launch, which a ROS machine has")

import launch_testing.asserts
import rclpy
from initialised_ros import initialised_ros
from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import GetParameters
from support import REPOSITORY, SMALLEST, wait_until

# As a parent may have them: a Python True, a whole number for a fraction, and a topic of a camera.
ARGUMENTS = {
    "rig": "nuscenes",
    "model": str(SMALLEST),
    "device": "cpu",
    "output_frame": "odom",
    "score_threshold": "1",
    "use_sim_time": "True",
    "cameras.CAM_FRONT.image_topic": "/front/image",
}
EXPECTED = {
    "model": str(SMALLEST),
    "output_frame": "odom",
    "use_sim_time": True,
    "cameras.CAM_FRONT.image_topic": "/front/image",
}


@pytest.mark.launch_test
@pytest.mark.integration
def generate_test_description():
    file = PythonLaunchDescriptionSource(str(REPOSITORY / "launch" / "detector.launch.py"))
    detector = IncludeLaunchDescription(file, launch_arguments=ARGUMENTS.items())
    return LaunchDescription([detector, launch_testing.actions.ReadyToTest()])


class TestTheNode(unittest.TestCase):
    def test_it_is_active_with_these_parameters(self, proc_output):
        proc_output.assertWaitFor("detecting with smallest", timeout=120, stream="stderr")
        with initialised_ros():
            node = rclpy.create_node("test_real_launch")
            state = ask(node, GetState, "/detector/get_state", GetState.Request())
            assert state.current_state.label == "active"
            request = GetParameters.Request(names=list(EXPECTED))
            values = ask(node, GetParameters, "/detector/get_parameters", request).values
            node.destroy_node()
        assert [value.bool_value or value.string_value for value in values] == list(EXPECTED.values())


def ask(node, kind, name, request):
    client = node.create_client(kind, name)
    wait_until(client.service_is_ready, f"the service {name}")
    future = client.call_async(request)
    rclpy.spin_until_future_complete(node, future, timeout_sec=30)
    return future.result()


@launch_testing.post_shutdown_test()
class TestTheEnd(unittest.TestCase):
    def test_it_ends_cleanly(self, proc_info):
        """Within the five seconds after which launch kills."""
        launch_testing.asserts.assertExitCodes(proc_info)
