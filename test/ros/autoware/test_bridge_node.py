"""The executable between two nodes of the test, over DDS, and a bag of what it sends."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pytest
import yaml
from support import REPOSITORY, wait_until
from tracked_boxes import boxes_at

rclpy = pytest.importorskip("rclpy", reason="needs a ROS environment (make test provides one)")
pytest.importorskip("autoware_perception_msgs", reason="needs Autoware's messages, which `make env` builds")

import jsonschema
from autoware_perception_msgs.msg import DetectedObjects, TrackedObjects
from bevformer_ros.msg import DetectionKinematicsArray
from initialised_ros import initialised_ros
from rclpy.executors import SingleThreadedExecutor
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.highlevel import AnyReader
from vision_msgs.msg import Detection3DArray

from bevformer_ros.ros.autoware.bridge_node import STATIONARY_BELOW_MPS, Runs
from bevformer_ros.ros.autoware.objects import Uncertainty, detected_objects
from bevformer_ros.ros.bag.files import BagWriter
from bevformer_ros.ros.conversions import (
    detections_to_message,
    kinematics_to_message,
    track_kinematics_to_message,
    tracks_to_message,
)
from bevformer_ros.tracking.tracker import Tracker
from bevformer_ros.types import SECOND_NS

FOLDER = REPOSITORY / "config" / "autoware"


@pytest.mark.parametrize(
    ("second", "same"),
    [(10.0, True), (10.1, True), (12.0, True), (12.1, False), (9.9, False)],
)
def test_a_pause_or_a_jump_back_begins_a_new_run(second, same):
    runs = Runs()
    first = runs.of(10 * SECOND_NS)
    assert (runs.of(round(second * SECOND_NS)) == first) == same


def test_the_schema_has_the_defaults_of_the_node():
    schema = json.loads((FOLDER / "autoware_bridge.schema.json").read_text())
    properties = schema["definitions"]["autoware_bridge"]["properties"]
    default = Uncertainty()
    expected = {name: getattr(default, name) for name in vars(default)}
    expected |= {"stationary_below_mps": STATIONARY_BELOW_MPS, "use_sim_time": False}
    found = {name: entry["default"] for name, entry in properties.items()}
    assert found == {name: list(value) if isinstance(value, tuple) else value for name, value in expected.items()}


def test_the_parameter_file_fits_the_schema():
    schema = json.loads((FOLDER / "autoware_bridge.schema.json").read_text())
    parameters = yaml.safe_load((FOLDER / "autoware_bridge.param.yaml").read_text())
    jsonschema.validate(parameters, schema)
    parameters["/**"]["ros__parameters"]["position_std_m"] = [0.1]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(parameters, schema)


@pytest.fixture
def graph(start_process):
    """A node of the test with its executor, and the bridge as a process."""
    bridge = start_process([sys.executable, "-m", "bevformer_ros.ros.autoware.bridge_node"])
    with initialised_ros():
        node = rclpy.create_node("test_bridge")
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        yield node, executor, bridge
        executor.shutdown()
        node.destroy_node()


@pytest.mark.integration
def test_over_dds_and_into_a_bag(graph, tmp_path):
    node, executor, bridge = graph
    inputs = {"detections": Detection3DArray, "kinematics": DetectionKinematicsArray}
    inputs |= {"tracks": Detection3DArray, "track_kinematics": DetectionKinematicsArray}
    publishers = {
        name: node.create_publisher(kind, f"/autoware_bridge/input/{name}", 10) for name, kind in inputs.items()
    }
    detected: list[DetectedObjects] = []
    tracked: list[TrackedObjects] = []
    outputs = {"detected_objects": (DetectedObjects, detected), "tracked_objects": (TrackedObjects, tracked)}
    for name, (kind, received) in outputs.items():
        node.create_subscription(kind, f"/autoware_bridge/output/{name}", received.append, 10)

    def spin_until(condition, what):
        def turn():
            executor.spin_once(timeout_sec=0.05)
            return condition()

        wait_until(turn, what)

    def connected():
        listening = all(publisher.get_subscription_count() for publisher in publishers.values())
        return listening and all(node.count_publishers(f"/autoware_bridge/output/{name}") for name in outputs)

    spin_until(connected, "the bridge to be connected")
    boxes = boxes_at(5_000_000_000, (20.0, 1.0), (30.0, -2.0), velocities=[(3, 0), (0, 0)], scores=[0.9, 0.8])
    tracks = Tracker()(boxes, np.eye(4))
    publishers["detections"].publish(detections_to_message(boxes, "map"))
    publishers["kinematics"].publish(kinematics_to_message(boxes, "map"))
    spin_until(lambda: "Autoware wants them in 'base_link'" in bridge.output, "the wrong frame to be refused")
    publishers["detections"].publish(detections_to_message(boxes, "base_link"))
    publishers["kinematics"].publish(kinematics_to_message(boxes, "base_link"))
    publishers["tracks"].publish(tracks_to_message(tracks, "base_link"))
    publishers["track_kinematics"].publish(track_kinematics_to_message(tracks, "base_link"))
    spin_until(lambda: detected and tracked, "both messages")

    expected = as_received(
        detected_objects(
            detections_to_message(boxes, "base_link"), kinematics_to_message(boxes, "base_link"), Uncertainty()
        )
    )
    assert detected == [expected]
    (message,) = tracked
    assert message.header == expected.header
    assert [entry.kinematics.is_stationary for entry in message.objects] == [False, True]
    assert len({bytes(entry.object_id.uuid) for entry in message.objects}) == 2
    for one, other in zip(message.objects, expected.objects, strict=True):
        assert one.classification == other.classification and one.shape == other.shape
        assert one.existence_probability == other.existence_probability

    with BagWriter(tmp_path / "bag") as bag:
        bag.write("/objects", detected[0], 1)
        bag.write("/tracked", tracked[0], 2)
    assert labels_in(tmp_path / "bag") == {"/objects": [1, 1], "/tracked": [1, 1]}


def as_received(message):
    """Numbers of 32 bits lose digits on the way."""
    return deserialize_message(serialize_message(message), type(message))


def labels_in(path):
    """As anybody reads a bag with rosbags, by the definitions that it carries."""
    found = {}
    with AnyReader([path]) as bag:
        for connection, _, data in bag.messages():
            message: Any = bag.deserialize(data, connection.msgtype)
            found[connection.topic] = [entry.classification[0].label for entry in message.objects]
    return found
