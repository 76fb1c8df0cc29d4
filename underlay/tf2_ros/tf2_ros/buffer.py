"""The transforms of the last seconds, and lookups among them."""

from __future__ import annotations

import math
import threading
import time as wall_time
from collections.abc import Callable

from builtin_interfaces.msg import Time as TimeMessage
from geometry_msgs.msg import Quaternion, TransformStamped, Vector3
from rclpy.clock import JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.time import Time

from tf2_ros.cache import Link
from tf2_ros.exceptions import TransformException
from tf2_ros.frame_tree import FrameTree
from tf2_ros.rigid import Rigid, normalise

_DEFAULT_CACHE_TIME = Duration(seconds=10)
_NO_WAIT = Duration()


class Buffer:
    """Stores transforms and answers lookups; every method may be called from any thread.

    A wait (`timeout`) is measured in wall time even under simulated time, as upstream's Python does, and ends as
    soon as the transform is there. It blocks its thread: inside a callback of a single-threaded executor that also
    serves the TransformListener nothing can arrive meanwhile, and the whole timeout passes. Wait in another thread,
    or give the listener its own (`spin_thread=True`).

    With a `node`, a jump back of its ROS time by a second or more, or a switch between system and simulated time,
    clears the buffer (static transforms stay). `jump_handle.unregister()` ends that, and lets go of the buffer.
    """

    def __init__(self, cache_time: Duration | None = None, node: Node | None = None) -> None:
        self._tree = FrameTree((cache_time or _DEFAULT_CACHE_TIME).nanoseconds)
        self._changed = threading.Condition()
        self._logger = get_logger("tf2_buffer")
        if node is not None:
            backward = JumpThreshold(min_forward=None, min_backward=Duration(seconds=-1), on_clock_change=True)
            self.jump_handle = node.get_clock().create_jump_callback(backward, post_callback=self.time_jump_callback)

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        """Add one transform; a faulty or outdated one is logged and ignored."""
        accepted = self._checked_link(transform, authority)
        if accepted is None:
            return
        child, link = accepted
        stamp = transform.header.stamp
        with self._changed:
            fresh = self._tree.insert(child, _nanoseconds(stamp), link)
            self._changed.notify_all()
        if not fresh:
            self._logger.warning(
                f"TF_OLD_DATA ignoring data from the past for frame {child} at time "
                f"{stamp.sec}.{stamp.nanosec:09d} according to authority {authority}"
            )

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        """Set a transform that holds at every time; a faulty one is logged and ignored."""
        accepted = self._checked_link(transform, authority)
        if accepted is not None:
            with self._changed:
                self._tree.insert_static(*accepted)
                self._changed.notify_all()

    def lookup_transform(
        self, target_frame: str, source_frame: str, time: Time | TimeMessage, timeout: Duration = _NO_WAIT
    ) -> TransformStamped:
        """target_from_source at `time` (0: the latest at which it is known), which the result is stamped with.

        Raises a TransformException that names the frames and times, after waiting up to `timeout`.
        """
        stamp = _nanoseconds(time)
        found = self._wait(lambda: self._tree.lookup(target_frame, source_frame, stamp), timeout)
        return _message(target_frame, source_frame, *found)

    def lookup_transform_full(
        self,
        target_frame: str,
        target_time: Time | TimeMessage,
        source_frame: str,
        source_time: Time | TimeMessage,
        fixed_frame: str,
        timeout: Duration = _NO_WAIT,
    ) -> TransformStamped:
        """The target frame at `target_time` from the source frame at `source_time`, `fixed_frame` holding still.

        The result is stamped with the target time. Raises as `lookup_transform` does.
        """
        stamps = _nanoseconds(target_time), _nanoseconds(source_time)
        found = self._wait(
            lambda: self._tree.lookup_full(target_frame, stamps[0], source_frame, stamps[1], fixed_frame), timeout
        )
        return _message(target_frame, source_frame, *found)

    def can_transform(
        self, target_frame: str, source_frame: str, time: Time | TimeMessage, timeout: Duration = _NO_WAIT
    ) -> bool:
        """Whether `lookup_transform` with the same arguments would succeed."""
        try:
            self.lookup_transform(target_frame, source_frame, time, timeout)
        except TransformException:
            return False
        return True

    def can_transform_full(
        self,
        target_frame: str,
        target_time: Time | TimeMessage,
        source_frame: str,
        source_time: Time | TimeMessage,
        fixed_frame: str,
        timeout: Duration = _NO_WAIT,
    ) -> bool:
        """Whether `lookup_transform_full` with the same arguments would succeed."""
        try:
            self.lookup_transform_full(target_frame, target_time, source_frame, source_time, fixed_frame, timeout)
        except TransformException:
            return False
        return True

    def clear(self) -> None:
        """Forget all but the static transforms; the frames remain known by name."""
        with self._changed:
            self._tree.clear()

    def all_frames_as_string(self) -> str:
        """One line for each frame that has a parent."""
        with self._changed:
            return self._tree.describe()

    def time_jump_callback(self, time_jump: TimeJump) -> None:
        self._logger.warning("Detected jump back in time. Clearing tf buffer.")
        self.clear()

    def _wait(self, look_up: Callable[[], tuple[Rigid, int]], timeout: Duration) -> tuple[Rigid, int]:
        deadline = wall_time.monotonic() + timeout.nanoseconds * 1e-9
        with self._changed:
            while True:
                try:
                    return look_up()
                except TransformException:
                    remaining = deadline - wall_time.monotonic()
                    if remaining <= 0.0 or not self._changed.wait(remaining):
                        raise

    def _checked_link(self, transform: TransformStamped, authority: str) -> tuple[str, Link] | None:
        """The child frame and its link, or None after logging what is wrong with them."""
        parent = transform.header.frame_id.removeprefix("/")
        child = transform.child_frame_id.removeprefix("/")
        t, q = transform.transform.translation, transform.transform.rotation
        translation, rotation = (t.x, t.y, t.z), (q.x, q.y, q.z, q.w)
        fault = _fault(parent, child, translation, rotation)
        if fault:
            self._logger.error(f'{fault}: ignoring transform "{child}" in "{parent}" from authority "{authority}"')
            return None
        return child, Link(parent, Rigid(translation, normalise(rotation)))


def _fault(
    parent: str,
    child: str,
    translation: tuple[float, float, float],
    rotation: tuple[float, float, float, float],
) -> str:
    if not child:
        return "TF_NO_CHILD_FRAME_ID (child_frame_id is not set)"
    if not parent:
        return "TF_NO_FRAME_ID (frame_id is not set)"
    if child == parent:
        return "TF_SELF_TRANSFORM (frame_id and child_frame_id are the same)"
    if any(map(math.isnan, translation + rotation)) or not any(rotation):  # upstream divides the latter by 0
        return f"TF_NAN_INPUT (translation {translation}, rotation {rotation})"
    return ""


def _nanoseconds(time: Time | TimeMessage) -> int:
    return time.nanoseconds if isinstance(time, Time) else time.sec * 10**9 + time.nanosec


def _message(target_frame: str, source_frame: str, target_from_source: Rigid, stamp: int) -> TransformStamped:
    message = TransformStamped(child_frame_id=source_frame)
    message.header.frame_id = target_frame
    message.header.stamp = TimeMessage(sec=stamp // 10**9, nanosec=stamp % 10**9)
    x, y, z = target_from_source.translation
    message.transform.translation = Vector3(x=x, y=y, z=z)
    x, y, z, w = target_from_source.rotation
    message.transform.rotation = Quaternion(x=x, y=y, z=z, w=w)
    return message
