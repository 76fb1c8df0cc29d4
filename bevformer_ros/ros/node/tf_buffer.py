"""tf2's buffer as the node uses it."""

from __future__ import annotations

import re
import threading
from collections import Counter, deque
from time import monotonic

from geometry_msgs.msg import TransformStamped
from rclpy.duration import Duration
from rclpy.time import Time
from tf2_ros import Buffer, TransformException

from bevformer_ros.ros.conversions import stamp_to_ns, transform_from_message
from bevformer_ros.ros.ego_motion import Matrix
from bevformer_ros.ros.transform_tree import RESTART_NS, NoTransformError

_NO_WAIT = Duration()
_RESTLESS_S, _MOST_RESTARTS, _RESTARTS_KEPT = 60.0, 5, 100
_FRAME_LINE = re.compile(r"Frame (\S+) exists with parent (\S+)\.")


class TfTransforms:
    """Implements Transforms by a tf2 buffer."""

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer

    def look_up(self, target: str, source: str, stamp_ns: int) -> Matrix:
        try:
            found = self._buffer.lookup_transform(target, source, Time(nanoseconds=stamp_ns))
        except TransformException as error:
            raise NoTransformError(self._reason(error)) from error
        return transform_from_message(found.transform)

    def look_up_through(self, target: str, target_ns: int, source: str, source_ns: int, fixed: str) -> Matrix:
        times = Time(nanoseconds=target_ns), Time(nanoseconds=source_ns)
        try:
            found = self._buffer.lookup_transform_full(target, times[0], source, times[1], fixed)
        except TransformException as error:
            raise NoTransformError(self._reason(error)) from error
        return transform_from_message(found.transform)

    def _reason(self, error: TransformException) -> str:
        restless = self._buffer.restless_frames() if isinstance(self._buffer, LoopingBuffer) else []
        if not restless:
            return str(error)
        return f"{error}; the stamps of {', '.join(restless)} go back again and again: do two nodes publish it?"

    def frames(self) -> set[str]:
        return {frame for pair in _FRAME_LINE.findall(self._buffer.all_frames_as_string()) for frame in pair}


class LoopingBuffer(Buffer):
    """A tf buffer that survives a bag that starts again.

    Upstream's refuses transforms older than its cache, and mixes younger ones with those of the pass before. So where
    the stamps of a frame step back, its transforms so far are forgotten, of that frame alone. Only frames between
    those that lookups ask for have that right: others may stamp as they like. A clock that jumps back is no reason:
    transforms tell by themselves, and at the right moment.
    """

    def __init__(self, cache_time: Duration) -> None:
        super().__init__(cache_time=cache_time)
        self._cache_ns = cache_time.nanoseconds
        self._kept: dict[str, deque[TransformStamped]] = {}  # by child, of its current pass
        self._parents: dict[str, str] = {}
        self._asked: set[str] = set()
        self._between: set[str] = set()  # frames whose transforms lookups use
        self._restarts: deque[tuple[float, str]] = deque(maxlen=_RESTARTS_KEPT)  # steady clock, frame
        self._lock = threading.RLock()

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        child = transform.child_frame_id.removeprefix("/")
        with self._lock:
            self._note_parent(child, transform)
            if self._asked and child not in self._between:
                super().set_transform(transform, authority)
                return
            kept = self._kept.setdefault(child, deque())
            stamp_ns = stamp_to_ns(transform.header.stamp)
            newest_ns = stamp_to_ns(kept[-1].header.stamp) if kept else stamp_ns
            if newest_ns - stamp_ns > RESTART_NS:
                self._forget(child)
            if not kept or stamp_ns > newest_ns:
                kept.append(transform)
            while stamp_to_ns(kept[0].header.stamp) < stamp_ns - self._cache_ns:
                kept.popleft()
            super().set_transform(transform, authority)

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        with self._lock:
            self._note_parent(transform.child_frame_id.removeprefix("/"), transform)
            super().set_transform_static(transform, authority)

    def lookup_transform(
        self, target_frame: str, source_frame: str, time: Time, timeout: Duration = _NO_WAIT
    ) -> TransformStamped:
        self._note_asked(target_frame, source_frame)
        return super().lookup_transform(target_frame, source_frame, time, timeout)

    def lookup_transform_full(
        self,
        target_frame: str,
        target_time: Time,
        source_frame: str,
        source_time: Time,
        fixed_frame: str,
        timeout: Duration = _NO_WAIT,
    ) -> TransformStamped:
        self._note_asked(target_frame, source_frame, fixed_frame)
        return super().lookup_transform_full(target_frame, target_time, source_frame, source_time, fixed_frame, timeout)

    def _forget(self, child: str) -> None:
        """Upstream can only forget all: what other frames have is put back."""
        self._restarts.append((monotonic(), child))
        self._kept[child].clear()
        self.clear()
        for kept in self._kept.values():
            for transform in kept:
                super().set_transform(transform, "restored")

    def restless_frames(self) -> list[str]:
        """Whose stamps have gone back again and again in the last minute, as no bag's do."""
        since_s = monotonic() - _RESTLESS_S
        counts = Counter(child for at_s, child in list(self._restarts) if at_s > since_s)
        return [child for child, count in counts.items() if count > _MOST_RESTARTS]

    def _note_asked(self, *frames: str) -> None:
        if not self._asked.issuperset(frames):
            with self._lock:
                self._asked.update(frames)
                self._find_between()

    def _note_parent(self, child: str, transform: TransformStamped) -> None:
        parent = transform.header.frame_id.removeprefix("/")
        if self._parents.get(child) != parent:
            self._parents[child] = parent
            self._find_between()

    def _find_between(self) -> None:
        self._between = set()
        for asked in self._asked:
            frame: str | None = asked
            while frame is not None and frame not in self._between:
                self._between.add(frame)
                frame = self._parents.get(frame)
        self._kept = {child: kept for child, kept in self._kept.items() if child in self._between}
