"""The message types are upstream's: the hashes are those that `ros2 topic info --verbose` prints on a ROS machine."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from support import REPOSITORY, wait_until

rclpy = pytest.importorskip("rclpy", reason="needs a ROS environment (make test provides one)")

from initialised_ros import initialised_ros
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Detection3DArray

HASHES = {
    "tf2_msgs/msg/TFMessage": "RIHS01_e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087",
    "vision_msgs/msg/Detection3DArray": "RIHS01_793f5eab9595ac1c0da07873cc859db42eae51f0ee76056db8562515d830e018",
}

KINDS: list[type] = [TFMessage, Detection3DArray]
if find_spec("autoware_perception_msgs"):
    from autoware_perception_msgs.msg import DetectedObjects, TrackedObjects

    KINDS += [DetectedObjects, TrackedObjects]


def underlay_types():
    types = {}
    for path in (REPOSITORY / "underlay").glob("*_msgs/msg/*.msg"):
        types |= get_types_from_msg(path.read_text(), f"{path.parts[-3]}/msg/{path.stem}")
    return types


def typestore():
    store = get_typestore(Stores.ROS2_KILTED)
    store.register({name: entry for name, entry in underlay_types().items() if name not in store.fielddefs})
    return store


def test_hashes_of_the_definitions():
    store = typestore()
    assert underlay_types()["tf2_msgs/msg/TFMessage"] == store.fielddefs["tf2_msgs/msg/TFMessage"]
    assert {name: store.hash_rihs01(name) for name in HASHES} == HASHES


@pytest.mark.integration
@pytest.mark.parametrize("kind", KINDS)
def test_hashes_on_the_wire(kind):
    """Of Autoware's messages, whose definitions here are upstream's text, the hash that these have by rosbags."""
    with initialised_ros():
        node = rclpy.create_node("test_message_types")
        publisher = node.create_publisher(kind, "topic", 1)
        wait_until(lambda: node.get_publishers_info_by_topic("topic"), "the publisher to be known")
        (info,) = node.get_publishers_info_by_topic("topic")
        assert str(info.topic_type_hash) == typestore().hash_rihs01(info.topic_type)
        publisher.destroy()
        node.destroy_node()
