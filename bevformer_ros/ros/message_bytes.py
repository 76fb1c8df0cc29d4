"""Messages to the bytes of a bag and back: by ROS where it is, else by the rosbags library; the bytes are equal."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from bevformer_ros.ros.message_definitions import typestore_with
from bevformer_ros.ros.messages import IN_ROS

if IN_ROS:
    from rclpy.serialization import deserialize_message, serialize_message


def deserialize(data: bytes, type_name: str) -> Any:
    """A message from CDR bytes. Raises ValueError for a type without a definition."""
    if IN_ROS:
        return deserialize_message(data, message_class(type_name))
    return typestore_with(type_name).deserialize_cdr(data, type_name)


def serialize(message: Any) -> bytes:
    """CDR bytes; equal messages become equal bytes.

    rclpy leaves in the bytes between fields what happened to be in memory; written anew by rosbags they are zero.
    """
    type_name = type_name_of(message)
    typestore = typestore_with(type_name)
    if IN_ROS:
        message = typestore.deserialize_cdr(serialize_message(message), type_name)
    return bytes(typestore.serialize_cdr(message, type_name))


def type_name_of(message: Any) -> str:
    """sensor_msgs/msg/Image of such a message."""
    return type_name_of_class(type(message))


def type_name_of_class(kind: Any) -> str:
    """sensor_msgs/msg/Image of its class."""
    if not IN_ROS:
        return str(kind.__msgtype__)
    return f"{kind.__module__.partition('.')[0]}/msg/{kind.__name__}"


def message_class(type_name: str) -> type:
    """The class of a ROS environment. Raises ValueError where its package is not installed."""
    package, _, name = type_name.partition("/msg/")
    try:
        return getattr(import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"message type {type_name} is not installed; source the workspace that builds {package}"
        ) from error
