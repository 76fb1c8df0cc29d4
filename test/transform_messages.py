"""Short spellings of stamped transforms for tests. Times are seconds, exact to the nanosecond."""

from __future__ import annotations

import math
from collections.abc import Sequence

from geometry_msgs.msg import TransformStamped
from rclpy.time import Time

NO_ROTATION = (0.0, 0.0, 0.0, 1.0)


def at(seconds: float) -> Time:
    return Time(nanoseconds=round(seconds * 1e9))


def about_z(degrees: float) -> tuple[float, float, float, float]:
    half = math.radians(degrees) / 2
    return (0.0, 0.0, math.sin(half), math.cos(half))


def stamped(
    parent: str,
    child: str,
    seconds: float = 0.0,
    translation: Sequence[float] = (0.0, 0.0, 0.0),
    rotation: Sequence[float] = NO_ROTATION,
) -> TransformStamped:
    """parent_from_child."""
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    message.header.stamp = at(seconds).to_msg()
    t, q = message.transform.translation, message.transform.rotation
    # Fields of messages take an integer without complaint and send it as garbage.
    t.x, t.y, t.z = map(float, translation)
    q.x, q.y, q.z, q.w = map(float, rotation)
    return message


def translation_of(message: TransformStamped) -> tuple[float, float, float]:
    t = message.transform.translation
    return (t.x, t.y, t.z)


def rotation_of(message: TransformStamped) -> tuple[float, float, float, float]:
    q = message.transform.rotation
    return (q.x, q.y, q.z, q.w)
