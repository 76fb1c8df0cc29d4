"""The poses of a recording: what tf2's buffer answers, for messages out of a bag and without ROS.

As in tf2 a frame's pose is interpolated between the two stamps about a time and never extrapolated; a lookup may pass
through a frame that holds still from one time to another.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from bevformer_ros import geometry
from bevformer_ros.ros.conversions import stamp_to_ns
from bevformer_ros.ros.messages import TransformStamped

Matrix = NDArray[np.float64]

RESTART_NS = 500_000_000  # no publisher of transforms is out of order by this much


class NoTransformError(LookupError):
    """How frames lie to each other at a time is not known, or not yet."""


@dataclass(frozen=True, order=True)
class _Link:
    """Where a frame was in its parent."""

    stamp_ns: int
    parent: str = field(compare=False)
    translation: Matrix = field(compare=False)
    quaternion: Matrix = field(compare=False)

    @property
    def parent_from_child(self) -> Matrix:
        return geometry.transform(self.translation, self.quaternion)


class TransformTree:
    """Frames of tf over time. Transforms that make no sense are left out, as tf2 does.

    cache_ns: what is older than the newest pose of a frame by more is forgotten; then a frame whose stamps step back is
    of a recording that starts again, and its poses so far are forgotten. None keeps everything.
    """

    def __init__(self, cache_ns: int | None = None) -> None:
        self._cache_ns = cache_ns
        self._moving: dict[str, list[_Link]] = {}
        self._static: dict[str, _Link] = {}

    def add(self, transform: TransformStamped) -> None:
        """From /tf."""
        child, link = transform.child_frame_id.removeprefix("/"), _link(transform)
        if not _is_sound(child, link):
            return
        links = self._moving.get(child, [])
        if self._cache_ns is not None and links:
            if links[-1].stamp_ns - link.stamp_ns > RESTART_NS:
                links = []
            del links[: bisect_left(links, links[-1].stamp_ns - self._cache_ns, key=_stamp) if links else 0]
        insort(links, link)
        self._static.pop(child, None)
        self._moving[child] = links

    def add_static(self, transform: TransformStamped) -> None:
        """From /tf_static: holds at every time."""
        child, link = transform.child_frame_id.removeprefix("/"), _link(transform)
        if _is_sound(child, link):
            self._moving.pop(child, None)
            self._static[child] = link

    def look_up(self, target: str, source: str, stamp_ns: int) -> Matrix:
        """(4, 4) target_from_source at a stamp. Raises NoTransformError."""
        if target == source:
            return np.eye(4)
        ancestors: dict[str, Matrix] = {}
        gap = ""
        try:
            for frame, frame_from_source in self._climb(source, stamp_ns):
                ancestors[frame] = frame_from_source
        except NoTransformError as error:
            gap = str(error)  # it does not matter if it lies above the frame where both ways meet
        try:
            for frame, frame_from_target in self._climb(target, stamp_ns):
                if frame in ancestors:
                    return geometry.invert(frame_from_target) @ ancestors[frame]
        except NoTransformError as error:
            gap = str(error)
        raise NoTransformError(
            f"no transform from {source} to {target} at {stamp_ns}: {gap or 'they are not connected'}"
        )

    def look_up_through(self, target: str, target_ns: int, source: str, source_ns: int, fixed: str) -> Matrix:
        """(4, 4), the target frame at one stamp from the source frame at another, while `fixed` holds still.

        Raises NoTransformError.
        """
        return self.look_up(target, fixed, target_ns) @ self.look_up(fixed, source, source_ns)

    def frames(self) -> set[str]:
        """The names of all that were heard of."""
        parents = {link.parent for links in self._moving.values() for link in links}
        return {*self._moving, *self._static, *parents, *(link.parent for link in self._static.values())}

    def ancestors(self, frame: str) -> list[tuple[str, bool]]:
        """The frames above one, nearest first, each with whether what lies below moves in it."""
        found: dict[str, bool] = {}
        while True:
            if frame in self._static:
                frame, moves = self._static[frame].parent, False
            elif self._moving.get(frame):
                frame, moves = self._moving[frame][-1].parent, True
            else:
                return list(found.items())
            if frame in found:  # a loop
                return list(found.items())
            found[frame] = moves

    def _climb(self, start: str, stamp_ns: int) -> Iterator[tuple[str, Matrix]]:
        """`start` and its ancestors, each with ancestor_from_start."""
        frame, frame_from_start = start, np.eye(4)
        climbed: set[str] = set()
        while frame not in climbed:
            climbed.add(frame)
            yield frame, frame_from_start
            found = self._parent_of(frame, stamp_ns)
            if found is None:
                return
            frame, parent_from_frame = found
            frame_from_start = parent_from_frame @ frame_from_start
        raise NoTransformError(f"the frames above {start} form a loop")

    def _parent_of(self, child: str, stamp_ns: int) -> tuple[str, Matrix] | None:
        """The parent and parent_from_child; None for a root. Raises NoTransformError outside the frame's stamps."""
        if child in self._static:
            return self._static[child].parent, self._static[child].parent_from_child
        links = self._moving.get(child)
        if not links:
            return None
        if not links[0].stamp_ns <= stamp_ns <= links[-1].stamp_ns:
            raise NoTransformError(
                f"{child} is known from {links[0].stamp_ns} to {links[-1].stamp_ns} and would have to be extrapolated"
            )
        place = bisect_right(links, stamp_ns, key=_stamp)
        before = links[place - 1]
        if before.stamp_ns == stamp_ns or links[place].parent != before.parent:
            return before.parent, before.parent_from_child
        return before.parent, _between(before, links[place], stamp_ns)


def _stamp(link: _Link) -> int:
    return link.stamp_ns


def _link(transform: TransformStamped) -> _Link:
    pose = transform.transform
    translation, rotation = pose.translation, pose.rotation
    return _Link(
        stamp_to_ns(transform.header.stamp),
        transform.header.frame_id.removeprefix("/"),
        np.array([translation.x, translation.y, translation.z]),
        np.array([rotation.x, rotation.y, rotation.z, rotation.w]),
    )


def _is_sound(child: str, link: _Link) -> bool:
    numbers = np.concatenate([link.translation, link.quaternion])
    is_rotation = float(link.quaternion @ link.quaternion) > 0.0  # tf2 normalises, whatever the length
    has_frames = bool(child) and bool(link.parent) and child != link.parent
    return has_frames and is_rotation and bool(np.isfinite(numbers).all())


def _between(before: _Link, after: _Link, stamp_ns: int) -> Matrix:
    """Straight on for the position, along the shorter arc for the rotation."""
    share = (stamp_ns - before.stamp_ns) / (after.stamp_ns - before.stamp_ns)
    rotations = Rotation.from_quat(np.stack([before.quaternion, after.quaternion]))
    translation = (1.0 - share) * before.translation + share * after.translation
    return geometry.transform(translation, Slerp([0.0, 1.0], rotations)(share).as_quat())
