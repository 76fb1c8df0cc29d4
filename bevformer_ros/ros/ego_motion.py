"""Where the cameras were, seen from the BEV frame: tf at stated stamps, never the latest."""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
from geometry_msgs.msg import TransformStamped
from numpy.typing import NDArray
from rclpy.duration import Duration
from rclpy.time import Time
from tf2_ros import Buffer, TransformException

from bevformer_ros import geometry
from bevformer_ros.config import RigConfig
from bevformer_ros.ros.conversions import stamp_to_ns, transform_from_message

Matrix = NDArray[np.float64]

# No publisher of transforms is out of order by this much.
_RESTART_NS = 500_000_000
_NO_WAIT = Duration()
_FRAME_LINE = re.compile(r"Frame (\S+) exists with parent (\S+)\.")
_NAMED_FRAMES = 12


@dataclass(frozen=True)
class StampedFrame:
    """A tf frame at one time."""

    frame_id: str
    stamp_ns: int


@dataclass(frozen=True)
class SetPoses:
    """All transforms of one set, (4, 4) each.

    camera_from_bev: from the BEV frame at the reference stamp to each optical frame at its image's stamp, None
    where the camera is missing. world_from_bev and output_from_bev hold at the reference stamp.
    """

    camera_from_bev: tuple[Matrix | None, ...]
    world_from_bev: Matrix
    output_from_bev: Matrix


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
            if newest_ns - stamp_ns > _RESTART_NS:
                self._forget(child)
            if not kept or stamp_ns >= newest_ns:
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
        self._kept[child].clear()
        self.clear()
        for kept in self._kept.values():
            for transform in kept:
                super().set_transform(transform, "restored")

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


class EgoMotion:
    """Looks up the poses of a set in a tf buffer, through the rig's fixed frame.

    The BEV frame need not exist in tf: it is the rig's fixed pose in its parent frame (the base frame unless the
    rig names another). output_frame: where the boxes are wanted; empty for the base frame.
    """

    def __init__(self, buffer: Buffer, rig: RigConfig, output_frame: str = "") -> None:
        self.output_frame = output_frame or rig.base_frame
        self._buffer = buffer
        self._base_frame, self._fixed_frame = rig.base_frame, rig.fixed_frame
        self._parent_frame = rig.bev_frame.parent or rig.base_frame
        self._parent_from_bev = geometry.transform_from_rpy(rig.bev_frame.translation, rig.bev_frame.roll_pitch_yaw)

    def poses(self, reference_ns: int, cameras: Sequence[StampedFrame | None]) -> SetPoses:
        """Raises tf2_ros.TransformException, naming frames and times, if any transform is not there (yet)."""
        return SetPoses(
            camera_from_bev=tuple(
                None if camera is None else self.camera_from_bev(camera, reference_ns) for camera in cameras
            ),
            world_from_bev=self.world_from_bev(reference_ns),
            output_from_bev=self.output_from_bev(reference_ns),
        )

    def camera_from_bev(self, camera: StampedFrame, reference_ns: int) -> Matrix:
        """(4, 4), from the BEV frame at the reference stamp to the camera's frame at its own. Raises as poses does."""
        camera_from_parent = self._buffer.lookup_transform_full(
            target_frame=camera.frame_id,
            target_time=Time(nanoseconds=camera.stamp_ns),
            source_frame=self._parent_frame,
            source_time=Time(nanoseconds=reference_ns),
            fixed_frame=self._fixed_frame,
        )
        return transform_from_message(camera_from_parent.transform) @ self._parent_from_bev

    def world_from_bev(self, reference_ns: int) -> Matrix:
        """(4, 4). Raises as poses does."""
        return self._from_bev(self._fixed_frame, reference_ns)

    def output_from_bev(self, reference_ns: int) -> Matrix:
        """(4, 4). Raises as poses does."""
        return self._from_bev(self.output_frame, reference_ns)

    def base_from_bev(self, reference_ns: int) -> Matrix:
        """(4, 4). Raises as poses does."""
        return self._from_bev(self._base_frame, reference_ns)

    def explain(self, error: TransformException, camera_frame: str = "") -> str:
        """The error with what a person needs to mend it. camera_frame: where it is about a camera."""
        roles = {
            camera_frame: "frame_id of the images",
            self._base_frame: "base_frame of the rig",
            self._fixed_frame: "fixed_frame of the rig",
            self._parent_frame: "base_frame of the rig"
            if self._parent_frame == self._base_frame
            else "bev_frame.parent of the rig",
            self.output_frame: "base_frame of the rig" if self.output_frame == self._base_frame else "output_frame",
        }
        known = {frame for pair in _FRAME_LINE.findall(self._buffer.all_frames_as_string()) for frame in pair}
        unknown = {frame: role for frame, role in roles.items() if frame not in known}
        if not camera_frame:
            unknown.pop("", None)
        if not unknown:
            return f"{error}; are the transforms late (transform_timeout_ms), or is their publisher dead?"
        missing = " and ".join(f"no frame {frame!r} ({role})" for frame, role in unknown.items())
        near = sorted({match for frame in unknown for match in get_close_matches(frame, known, n=2)})
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        return f"tf has {missing}, only {', '.join(sorted(known)[:_NAMED_FRAMES]) or 'nothing'}{hint}"

    def _from_bev(self, target_frame: str, reference_ns: int) -> Matrix:
        target_from_parent = self._buffer.lookup_transform(
            target_frame, self._parent_frame, Time(nanoseconds=reference_ns)
        )
        return transform_from_message(target_from_parent.transform) @ self._parent_from_bev
