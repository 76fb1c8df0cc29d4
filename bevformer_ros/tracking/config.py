"""How boxes become tracks: scores and times for all, motion and noise class by class."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from bevformer_ros.taxonomy import CLASS_NAMES


@dataclass(frozen=True)
class ClassMotion:
    """How one class moves and how well the detector sees it. "std" is a standard deviation."""

    gate_m: float
    """Farthest over ground that a box may lie from where its track is expected."""
    acceleration_density: float
    """Power of the random acceleration, m²/s³: after t seconds the speed is off by the root of this times t."""
    position_std_m: float
    """Of a box across the line of sight."""
    depth_std_share: float
    """What comes to it along the line of sight, as a share of the range."""
    velocity_std_mps: float
    """Of the velocity that the model gives."""
    yaw_std_rad: float
    """Of a box's axis; front and rear are told apart by other means."""
    turn_density: float
    """Power of the random turning, rad²/s: after t seconds the yaw is off by the root of this times t."""

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            least = "zero or more" if entry.name == "depth_std_share" else "a positive number"
            if not (value > 0 or (value == 0 and entry.name == "depth_std_share")):
                raise ValueError(f"{entry.name} is {value}, expected {least}")


_CAR = ClassMotion(4.0, 4.0, 0.4, 0.02, 1.5, 0.3, 0.3)
_LONG_VEHICLE = ClassMotion(5.0, 2.0, 0.6, 0.03, 1.5, 0.3, 0.1)
_CYCLE = ClassMotion(3.0, 4.0, 0.4, 0.02, 1.5, 0.5, 0.6)
_PEDESTRIAN = ClassMotion(2.0, 1.0, 0.3, 0.02, 1.0, 0.8, 1.0)
_FURNITURE = ClassMotion(1.0, 0.01, 0.3, 0.02, 0.5, 0.5, 0.01)


@dataclass(frozen=True)
class ClassMotions:
    """One entry for each class of the taxonomy."""

    barrier: ClassMotion = _FURNITURE
    bicycle: ClassMotion = _CYCLE
    bus: ClassMotion = _LONG_VEHICLE
    car: ClassMotion = _CAR
    construction_vehicle: ClassMotion = _LONG_VEHICLE
    motorcycle: ClassMotion = _CYCLE
    pedestrian: ClassMotion = _PEDESTRIAN
    traffic_cone: ClassMotion = _FURNITURE
    trailer: ClassMotion = _LONG_VEHICLE
    truck: ClassMotion = _LONG_VEHICLE

    def column(self, name: str) -> NDArray[np.float64]:
        """(classes,) one value of every class, in the order of the taxonomy."""
        return np.array([getattr(getattr(self, entry), name) for entry in CLASS_NAMES])


@dataclass(frozen=True)
class TrackingConfig:
    """When a track begins, continues and ends."""

    high_score: float = 0.3
    """A box with at least this score may begin a track."""
    low_score: float = 0.1
    """A box with at least this score may continue a track that no better box continues; equal to high_score, there is
    no such second stage."""
    confirm_score: float = 0.6
    """A track is reported once the scores of its boxes sum up to this; before, one miss ends it."""
    maximum_coast_s: float = 3.0
    """How long a track without boxes is remembered, so that it may go on behind an occlusion."""
    report_coast_s: float = 0.3
    """How long of that it is still reported."""
    score_half_life_s: float = 0.5
    """The score of a track without boxes halves in this time."""
    velocity_memory_s: float = 1.0
    """How long an error of the model's velocity lasts: all that it says in this time counts once."""
    size_std_m: float = 0.3
    """Of a box's length, width and height."""
    height_std_m: float = 0.3
    """Of z of a box's centre."""
    height_density: float = 0.1
    """Power of the random change of z, m²/s, for slopes and localisation."""
    classes: ClassMotions = ClassMotions()
    """Motion and noise, class by class."""

    def __post_init__(self) -> None:
        if not 0 <= self.low_score <= self.high_score <= 1:
            raise ValueError(
                f"low_score is {self.low_score} and high_score {self.high_score}, expected 0 <= low <= high <= 1"
            )
        if not 0 <= self.report_coast_s <= self.maximum_coast_s:
            raise ValueError(
                f"report_coast_s is {self.report_coast_s}, expected 0 to maximum_coast_s {self.maximum_coast_s}"
            )
        for name in ("score_half_life_s", "velocity_memory_s", "size_std_m", "height_std_m", "height_density"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a positive number")
        if self.confirm_score < 0:
            raise ValueError(f"confirm_score is {self.confirm_score}, expected zero or more")
