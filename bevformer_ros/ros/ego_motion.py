"""Where the cameras were, seen from the BEV frame: tf at stated stamps, never the latest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from geometry_msgs.msg import TransformStamped
from numpy.typing import NDArray
from rclpy.duration import Duration
from rclpy.time import Time
from tf2_ros import Buffer

from bevformer_ros import geometry
from bevformer_ros.config import RigConfig
from bevformer_ros.ros.conversions import stamp_to_ns, transform_from_message

Matrix = NDArray[np.float64]

# No publisher of transforms is out of order by this much.
_RESTART_NS = 500_000_000


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
    """A tf buffer that forgets when the stamps of a frame step back: a bag that starts again.

    Upstream's refuses transforms older than its cache, and mixes younger ones with those of the pass before. A clock
    that jumps back clears it too, but too early or too late for transforms on their way, and only where /clock is used.
    """

    def __init__(self, cache_time: Duration) -> None:
        super().__init__(cache_time=cache_time)
        self._newest_ns: dict[str, int] = {}

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        stamp_ns = stamp_to_ns(transform.header.stamp)
        newest_ns = self._newest_ns.get(transform.child_frame_id, stamp_ns)
        if newest_ns - stamp_ns > _RESTART_NS:
            self.clear()
            self._newest_ns.clear()
            newest_ns = stamp_ns
        self._newest_ns[transform.child_frame_id] = max(newest_ns, stamp_ns)
        super().set_transform(transform, authority)


class EgoMotion:
    """Looks up the poses of a set in a tf buffer, through the rig's fixed frame.

    The BEV frame need not exist in tf: it is the rig's fixed pose in its parent frame (the base frame unless the
    rig names another). output_frame: where the boxes are wanted; empty for the base frame.
    """

    def __init__(self, buffer: Buffer, rig: RigConfig, output_frame: str = "") -> None:
        self.output_frame = output_frame or rig.base_frame
        self._buffer = buffer
        self._fixed_frame = rig.fixed_frame
        self._parent_frame = rig.bev_frame.parent or rig.base_frame
        self._parent_from_bev = geometry.transform_from_rpy(rig.bev_frame.translation, rig.bev_frame.roll_pitch_yaw)

    def poses(self, reference_ns: int, cameras: Sequence[StampedFrame | None]) -> SetPoses:
        """Raises tf2_ros.TransformException, naming frames and times, if any transform is not there (yet)."""
        return SetPoses(
            camera_from_bev=tuple(
                None if camera is None else self._camera_from_bev(camera, reference_ns) for camera in cameras
            ),
            world_from_bev=self._from_bev(self._fixed_frame, reference_ns),
            output_from_bev=self._from_bev(self.output_frame, reference_ns),
        )

    def _camera_from_bev(self, camera: StampedFrame, reference_ns: int) -> Matrix:
        camera_from_parent = self._buffer.lookup_transform_full(
            target_frame=camera.frame_id,
            target_time=Time(nanoseconds=camera.stamp_ns),
            source_frame=self._parent_frame,
            source_time=Time(nanoseconds=reference_ns),
            fixed_frame=self._fixed_frame,
        )
        return transform_from_message(camera_from_parent.transform) @ self._parent_from_bev

    def _from_bev(self, target_frame: str, reference_ns: int) -> Matrix:
        target_from_parent = self._buffer.lookup_transform(
            target_frame, self._parent_frame, Time(nanoseconds=reference_ns)
        )
        return transform_from_message(target_from_parent.transform) @ self._parent_from_bev
