"""What our buffer is a subclass of where a ROS 2 is sourced: upstream's tf2_ros.Buffer, as far as that matters.

Upstream's is Python around a core in C++, which calls none of the methods that a subclass may override; callbacks of
waiting futures run inside set_transform. The tree of the underlay stands in for the core.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from geometry_msgs.msg import TransformStamped
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time
from tf2_ros import Buffer, TransformException


class Core:
    """tf2_py.BufferCore."""

    def __init__(self, cache_time: Duration | None = None) -> None:
        self._core = Buffer(cache_time)

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        self._core.set_transform(transform, authority)

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        self._core.set_transform_static(transform, authority)

    def lookup_transform_core(self, target_frame: str, source_frame: str, time: Time) -> TransformStamped:
        return self._core.lookup_transform(target_frame, source_frame, time)

    def lookup_transform_full_core(self, *arguments: str | Time) -> TransformStamped:
        return self._core.lookup_transform_full(*arguments)

    def can_transform_core(self, target_frame: str, source_frame: str, time: Time) -> tuple[bool, str]:
        try:
            self._core.lookup_transform(target_frame, source_frame, time)
        except TransformException as error:
            return False, str(error)
        return True, ""

    def clear(self) -> None:
        self._core.clear()

    def all_frames_as_string(self) -> str:
        return self._core.all_frames_as_string()


class UpstreamBuffer(Core):
    """tf2_ros.Buffer."""

    def __init__(self, cache_time: Duration | None = None, node: Node | None = None) -> None:
        super().__init__(cache_time)
        self._new_data_callbacks: list[Callable[[], None]] = []
        self._callbacks_lock = threading.RLock()

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        super().set_transform(transform, authority)
        self._call_new_data_callbacks()

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        super().set_transform_static(transform, authority)
        self._call_new_data_callbacks()

    def lookup_transform(
        self, target_frame: str, source_frame: str, time: Time, timeout: Duration | None = None
    ) -> TransformStamped:
        self.can_transform(target_frame, source_frame, time)
        return self.lookup_transform_core(target_frame, source_frame, time)

    def lookup_transform_full(
        self,
        target_frame: str,
        target_time: Time,
        source_frame: str,
        source_time: Time,
        fixed_frame: str,
        timeout: Duration | None = None,
    ) -> TransformStamped:
        return self.lookup_transform_full_core(target_frame, target_time, source_frame, source_time, fixed_frame)

    def can_transform(self, target_frame: str, source_frame: str, time: Time) -> bool:
        return self.can_transform_core(target_frame, source_frame, time)[0]

    def _call_new_data_callbacks(self) -> None:
        with self._callbacks_lock:
            for callback in self._new_data_callbacks:
                callback()
