"""What bevformer_ros uses of upstream's tf2_ros (the Python package of tf2_ros_py), where no ROS 2 is installed.

Present, with the names, arguments and behaviour of Jazzy and Kilted: Buffer (set_transform, set_transform_static,
lookup_transform, lookup_transform_full, can_transform, can_transform_full, clear, all_frames_as_string),
TransformListener, TransformBroadcaster, StaticTransformBroadcaster and the exceptions.

Absent: the asynchronous lookups (wait_for_transform_async and its kin), transform() and the conversion registry of
BufferInterface, BufferClient and BufferServer, velocities, the tf2_frames service and its YAML, the debug tuple of
can_transform, a listener that makes its own node, and other topics than /tf and /tf_static.
"""

from tf2_ros.buffer import Buffer
from tf2_ros.exceptions import (
    ConnectivityException,
    ExtrapolationException,
    InvalidArgumentException,
    LookupException,
    TimeoutException,
    TransformException,
)
from tf2_ros.static_transform_broadcaster import StaticTransformBroadcaster
from tf2_ros.transform_broadcaster import TransformBroadcaster
from tf2_ros.transform_listener import TransformListener

__all__ = [
    "Buffer",
    "ConnectivityException",
    "ExtrapolationException",
    "InvalidArgumentException",
    "LookupException",
    "StaticTransformBroadcaster",
    "TimeoutException",
    "TransformBroadcaster",
    "TransformException",
    "TransformListener",
]
