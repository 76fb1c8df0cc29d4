"""The rigs of examples/ and the node that listens, against a stand-in for the detector."""

from __future__ import annotations

import sys

import pytest
from support import REPOSITORY, wait_until
from tracked_boxes import boxes_at

from bevformer_ros.config import RigConfig, load_yaml

EXAMPLES = REPOSITORY / "examples"
NUSCENES = load_yaml(RigConfig, REPOSITORY / "config" / "rigs" / "nuscenes.yaml")


@pytest.mark.parametrize(("name", "base_frame"), [("carla_rig.yaml", "ego_vehicle"), ("awsim_rig.yaml", "base_link")])
def test_rigs_have_the_cameras_of_the_models(name, base_frame):
    rig = load_yaml(RigConfig, EXAMPLES / name)
    assert [camera.name for camera in rig.cameras] == [camera.name for camera in NUSCENES.cameras]
    assert len({camera.image_topic for camera in rig.cameras}) == len(rig.cameras)
    assert (rig.base_frame, rig.fixed_frame, rig.bev_frame.parent) == (base_frame, "map", None)


def test_every_rig_is_tested():
    assert sorted(path.name for path in EXAMPLES.glob("*.yaml")) == ["awsim_rig.yaml", "carla_rig.yaml"]


@pytest.mark.integration
def test_the_consumer_tells_what_is_ahead(start_process):
    rclpy = pytest.importorskip("rclpy", reason="needs a ROS environment (make test provides one)")
    from bevformer_ros.msg import DetectionKinematicsArray
    from initialised_ros import initialised_ros
    from vision_msgs.msg import Detection3DArray

    from bevformer_ros.ros.conversions import detections_to_message, kinematics_to_message

    consumer = start_process([sys.executable, EXAMPLES / "consumer.py"])
    with initialised_ros():
        node = rclpy.create_node("test_consumer")
        publishers = [
            node.create_publisher(Detection3DArray, "/detector/detections", 10),
            node.create_publisher(DetectionKinematicsArray, "/detector/kinematics", 10),
        ]
        wait_until(lambda: all(entry.get_subscription_count() for entry in publishers), "the consumer to subscribe")
        boxes = boxes_at(7, (20.0, 1.0), (-9.0, 0.0), (15.0, 9.0), velocities=[(3.0, 4.0), (0, 0), (0, 0)])
        publishers[0].publish(detections_to_message(boxes, "base_link"))
        publishers[1].publish(kinematics_to_message(boxes, "base_link"))
        consumer.wait_for_output("car: 20.0 m ahead, 5.0 m/s")
        assert consumer.output.count("ahead") == 1
        node.destroy_node()
