"""Where the cameras were, seen from the BEV frame: tf at stated stamps, never the latest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bevformer_ros import geometry
from bevformer_ros.config import RigConfig
from bevformer_ros.ros.transform_tree import NoTransformError

Matrix = NDArray[np.float64]

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


class Transforms(Protocol):
    """Answers how frames lie to each other at stated stamps: a tf buffer, or the recording of one."""

    def look_up(self, target: str, source: str, stamp_ns: int) -> Matrix:
        """(4, 4) target_from_source. Raises NoTransformError where it is not known (yet)."""
        ...

    def look_up_through(self, target: str, target_ns: int, source: str, source_ns: int, fixed: str) -> Matrix:
        """The same with each frame at a stamp of its own, while `fixed` holds still."""
        ...

    def frames(self) -> set[str]:
        """The names of all that were heard of."""
        ...


class EgoMotion:
    """Looks up the poses of a set among the transforms, through the rig's fixed frame.

    The BEV frame need not exist in tf: it is the rig's fixed pose in its parent frame (the base frame unless the
    rig names another). output_frame: where the boxes are wanted; empty for the base frame.
    """

    def __init__(self, transforms: Transforms, rig: RigConfig, output_frame: str = "") -> None:
        self.output_frame = output_frame or rig.base_frame
        self._transforms = transforms
        self._base_frame, self._fixed_frame = rig.base_frame, rig.fixed_frame
        self._parent_frame = rig.bev_frame.parent or rig.base_frame
        self._parent_from_bev = geometry.transform_from_rpy(rig.bev_frame.translation, rig.bev_frame.roll_pitch_yaw)

    def poses(self, reference_ns: int, cameras: Sequence[StampedFrame | None]) -> SetPoses:
        """Raises NoTransformError, naming frames and times, if any transform is not there (yet)."""
        return SetPoses(
            camera_from_bev=tuple(
                None if camera is None else self.camera_from_bev(camera, reference_ns) for camera in cameras
            ),
            world_from_bev=self.world_from_bev(reference_ns),
            output_from_bev=self.output_from_bev(reference_ns),
        )

    def camera_from_bev(self, camera: StampedFrame, reference_ns: int) -> Matrix:
        """(4, 4), from the BEV frame at the reference stamp to the camera's frame at its own. Raises as poses does."""
        camera_from_parent = self._transforms.look_up_through(
            camera.frame_id, camera.stamp_ns, self._parent_frame, reference_ns, self._fixed_frame
        )
        return camera_from_parent @ self._parent_from_bev

    def world_from_bev(self, reference_ns: int) -> Matrix:
        """(4, 4). Raises as poses does."""
        return self._from_bev(self._fixed_frame, reference_ns)

    def output_from_bev(self, reference_ns: int) -> Matrix:
        """(4, 4). Raises as poses does."""
        return self._from_bev(self.output_frame, reference_ns)

    def base_from_bev(self, reference_ns: int) -> Matrix:
        """(4, 4). Raises as poses does."""
        return self._from_bev(self._base_frame, reference_ns)

    def explain(self, error: NoTransformError, camera_frame: str = "") -> str:
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
        known = self._transforms.frames()
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
        return self._transforms.look_up(target_frame, self._parent_frame, reference_ns) @ self._parent_from_bev
