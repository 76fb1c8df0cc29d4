"""Messages without ROS: as rclpy's, field by field and byte by byte."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="needs the rosbags library: pip install .[bags]")

from bevformer_ros.ros import messages
from bevformer_ros.ros.message_bytes import serialize, type_name_of
from bevformer_ros.ros.message_definitions import typestore_with
from bevformer_ros.ros.offline_messages import offline_class

CLASSES = [name for name in messages.__all__ if name[0].isupper() and name != "IN_ROS"]


def type_name(name):
    return type_name_of(getattr(messages, name)())


@pytest.mark.parametrize("name", CLASSES)
def test_a_new_message_has_the_bytes_of_rclpys(name):
    if not messages.IN_ROS:
        pytest.skip("compares with rclpy: needs the ROS environment that `make test` makes")
    made = offline_class(type_name(name))()
    expected = serialize(getattr(messages, name)())
    assert bytes(typestore_with(type_name(name)).serialize_cdr(made, type_name(name))) == expected


@pytest.mark.parametrize("name", CLASSES)
def test_constants_are_the_same(name):
    theirs, ours = getattr(messages, name), offline_class(type_name(name))
    constants = [word for word in dir(theirs) if word.isupper() and "__" not in word and word != "SLOT_TYPES"]
    for word in constants:
        expected = getattr(theirs, word)
        assert getattr(ours, word) == (expected[0] if isinstance(expected, bytes) else expected)


def test_fields_can_be_given_and_a_strange_one_is_refused():
    header_class = offline_class("std_msgs/msg/Header")
    assert header_class(frame_id="map").frame_id == "map"
    assert (header_class().frame_id, header_class().stamp.sec) == ("", 0)
    with pytest.raises(TypeError, match="std_msgs/msg/Header has no field colour"):
        header_class(colour="red")


def test_two_messages_share_nothing():
    array_class = offline_class("vision_msgs/msg/Detection3DArray")
    first, second = array_class(), array_class()
    first.detections.append(offline_class("vision_msgs/msg/Detection3D")())
    first.header.frame_id = "map"
    assert (second.detections, second.header.frame_id) == ([], "")


def test_numbers_become_arrays_of_their_type():
    info = offline_class("sensor_msgs/msg/CameraInfo")()
    info.d = [0.5, 1]
    assert info.d.dtype == np.float64
    assert info.k.shape == (9,)
    image = offline_class("sensor_msgs/msg/Image")(data=[1, 2])
    assert image.data.tolist() == [1, 2]


def test_a_type_without_a_definition():
    with pytest.raises(ValueError, match="no definition of nobody_msgs/msg/Thing"):
        offline_class("nobody_msgs/msg/Thing")
