"""Which other frames a model sees beside the current one, and when the past is worth nothing.

Pure logic on stamps (integer nanoseconds), poses and calibrations; the tensors live in bev_buffer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from bevformer_ros import geometry
from bevformer_ros.lens import Lens
from bevformer_ros.types import SECOND_NS, CameraImage, SurroundFrame

REQUEST = "request"


@dataclass(frozen=True)
class HistoryConfig:
    """How frames are remembered, looked up by time, and forgotten; what the model itself knows is its
    TemporalConfig."""

    tolerance: float = 0.25
    """How far from its nominal time a frame may lie and still fill a slot, in frame intervals of the model."""
    minimum_spacing_s: float = 0.075
    """A frame that follows the last stored one sooner is used but not stored, which bounds the memory whatever the
    camera rate. 0.075 keeps every frame of a rig up to 13 Hz."""
    maximum_gap_s: float = 2.0
    """A longer pause between frames is a gap."""
    maximum_speed_mps: float = 60.0
    """A faster motion is a jump."""
    maximum_turn_rate_rps: float = 2.0
    """A faster turn is a jump."""
    pose_noise_m: float = 1.0
    """Localisation may correct the position by this much at once."""
    pose_noise_rad: float = 0.1
    """Localisation may correct the heading by this much at once."""
    intrinsics_tolerance: float = 0.01
    """Largest change of focal length or principal point relative to the focal length, and of a distortion
    coefficient."""
    mount_tolerance_m: float = 0.5
    """Largest change of a camera's position beyond what ego motion explains."""
    mount_tolerance_rad: float = 0.05
    """Largest change of a camera's direction beyond what ego motion explains."""

    def __post_init__(self) -> None:
        for name in ("minimum_spacing_s", "maximum_gap_s", "maximum_speed_mps", "maximum_turn_rate_rps"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a positive number")
        for name in (
            "pose_noise_m",
            "pose_noise_rad",
            "intrinsics_tolerance",
            "mount_tolerance_m",
            "mount_tolerance_rad",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected zero or more")
        if not 0 <= self.tolerance < 0.5:
            raise ValueError(
                f"tolerance is {self.tolerance}, expected 0 or more and under 0.5: no frame fills two slots"
            )


@dataclass(frozen=True)
class Slots:
    """The frames of a model on the time axis.

    offsets_ns: time of each frame relative to the current one, ascending, with the current one's 0.
    """

    offsets_ns: tuple[int, ...]
    tolerance_ns: int

    def __post_init__(self) -> None:
        if 0 not in self.offsets_ns or list(self.offsets_ns) != sorted(set(self.offsets_ns)):
            raise ValueError(f"frame offsets are {self.offsets_ns}, expected ascending numbers with a 0")

    @classmethod
    def at_interval(cls, frames: Sequence[int], interval_s: float, tolerance: float) -> Slots:
        """Slots of a model whose frame numbers (such as -7..0) lie interval_s apart; tolerance in intervals."""
        interval_ns = interval_s * SECOND_NS
        return cls(tuple(round(number * interval_ns) for number in frames), round(tolerance * interval_ns))

    @property
    def past_ns(self) -> int:
        return -self.offsets_ns[0]

    @property
    def future_ns(self) -> int:
        return self.offsets_ns[-1]

    def capacity(self, spacing_ns: int) -> int:
        """How many stored frames, at least spacing_ns apart, can matter at once, with the current and the newest."""
        horizon = self.past_ns + self.future_ns
        return math.ceil((horizon + self.tolerance_ns) / spacing_ns) + 2 if horizon else 0

    def nearest(self, now_ns: int, stamps_ns: Sequence[int]) -> tuple[int | None, ...]:
        """For each slot the index of the stamp nearest to its time, or None where none is within the tolerance.

        The current frame's own slot is None. Of two equally near stamps the newer is taken.
        """

        def best(target: int) -> int | None:
            near = [index for index, stamp in enumerate(stamps_ns) if abs(stamp - target) <= self.tolerance_ns]
            return min(near, key=lambda index: (abs(stamps_ns[index] - target), -stamps_ns[index]), default=None)

        return tuple(best(now_ns + offset) if offset else None for offset in self.offsets_ns)

    def fill(self, nearest: Sequence[int | None]) -> tuple[int | None, ...]:
        """Replace empty slots as the reference does: the past repeats the next newer, the future the next older.

        None stands for the current frame.
        """
        filled = list(nearest)
        current = self.offsets_ns.index(0)
        for index in range(current - 1, -1, -1):
            filled[index] = filled[index + 1] if filled[index] is None else filled[index]
        for index in range(current + 1, len(filled)):
            filled[index] = filled[index - 1] if filled[index] is None else filled[index]
        return tuple(filled)

    def velocity_scale(self, now_ns: int, nearest: Sequence[int | None], stamps_ns: Sequence[int]) -> float:
        """Factor that turns velocities read at the nominal spacing into velocities at the real one.

        A model trained at fixed offsets o reads a displacement d over a slot as the velocity d / o. If the frames
        really lie at offsets a, the least-squares velocity over all filled slots is off by sum(o a) / sum(o o).
        """
        pairs = [
            (offset / SECOND_NS, (stamps_ns[index] - now_ns) / SECOND_NS)
            for offset, index in zip(self.offsets_ns, nearest, strict=True)
            if index is not None
        ]
        return sum(o * o for o, _ in pairs) / sum(o * a for o, a in pairs) if pairs else 1.0


@dataclass(frozen=True)
class CameraRecord:
    """What must stay the same for a camera's past to be comparable with its present."""

    name: str
    size: tuple[int, int]
    intrinsics: NDArray[np.float64]
    lens: Lens
    camera_from_bev: NDArray[np.float64]
    exposure_ns: int


@dataclass(frozen=True)
class FrameRecord:
    """The last frame as far as the reset rules look back. cameras: each slot's last seen camera, None if never."""

    stamp_ns: int
    world_from_bev: NDArray[np.float64]
    scene: str
    cameras: tuple[CameraRecord | None, ...]

    @classmethod
    def of(cls, frame: SurroundFrame, previous: FrameRecord | None) -> FrameRecord:
        cameras = tuple(_camera_record(camera, frame.stamp_ns) for camera in frame.cameras)
        if previous is not None and len(previous.cameras) == len(cameras):
            cameras = tuple(new or old for new, old in zip(cameras, previous.cameras, strict=True))
        return cls(frame.stamp_ns, frame.world_from_bev, frame.scene, cameras)


def _camera_record(camera: CameraImage | None, reference_ns: int) -> CameraRecord | None:
    if camera is None:
        return None
    height, width = camera.image.shape[:2]
    return CameraRecord(
        camera.name,
        (height, width),
        camera.intrinsics,
        camera.lens,
        camera.camera_from_bev,
        camera.stamp_ns - reference_ns,
    )


def reset_reason(previous: FrameRecord, current: FrameRecord, config: HistoryConfig) -> str | None:
    """Why the history must not be carried from the previous frame to the current one; None if it may.

    The first rule that is broken names the reason: a looping bag jumps in time and place, and counts once.
    A camera that is missing from a set breaks no rule, one that is replaced by another does.
    """
    elapsed = (current.stamp_ns - previous.stamp_ns) / SECOND_NS
    motion = geometry.invert(previous.world_from_bev) @ current.world_from_bev
    distance, turn = float(np.linalg.norm(motion[:3, 3])), _angle(motion)
    pairs = list(zip(previous.cameras, current.cameras, strict=False))
    known = [(before, now) for before, now in pairs if before is not None and now is not None]
    rules = (
        ("scene_change", current.scene != previous.scene),
        ("backward_time", elapsed < 0),
        ("gap", elapsed > config.maximum_gap_s),
        (
            "pose_jump",
            distance > config.maximum_speed_mps * elapsed + config.pose_noise_m
            or turn > config.maximum_turn_rate_rps * elapsed + config.pose_noise_rad,
        ),
        (
            "camera_set_change",
            len(previous.cameras) != len(current.cameras) or any(before.name != now.name for before, now in known),
        ),
        ("calibration_change", any(_recalibrated(*pair, distance, turn, elapsed, config) for pair in known)),
    )
    return next((reason for reason, broken in rules if broken), None)


def _recalibrated(
    before: CameraRecord, now: CameraRecord, distance: float, turn: float, elapsed: float, config: HistoryConfig
) -> bool:
    if before.size != now.size or _differ(before.lens, now.lens, config.intrinsics_tolerance):
        return True
    if np.abs(now.intrinsics - before.intrinsics).max() > config.intrinsics_tolerance * before.intrinsics[0, 0]:
        return True
    # camera_from_bev spans the time from the reference to the exposure: it moves with the ego when that time jitters.
    jitter = abs(now.exposure_ns - before.exposure_ns) / SECOND_NS
    part = jitter / elapsed if elapsed > 0 else 0.0
    change = now.camera_from_bev @ geometry.invert(before.camera_from_bev)
    moved = np.linalg.norm(geometry.invert(now.camera_from_bev)[:3, 3] - geometry.invert(before.camera_from_bev)[:3, 3])
    return bool(
        moved > config.mount_tolerance_m + part * distance or _angle(change) > config.mount_tolerance_rad + part * turn
    )


def _differ(before: Lens, now: Lens, tolerance: float) -> bool:
    if (before.model, len(before.coefficients)) != (now.model, len(now.coefficients)):
        return True
    return any(abs(a - b) > tolerance for a, b in zip(before.coefficients, now.coefficients, strict=True))


def _angle(matrix: NDArray[np.float64]) -> float:
    return float(Rotation.from_matrix(matrix[:3, :3]).magnitude())
