"""How far boxes may be off: standard deviations by class and distance, as the validation of weights found them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bevformer_ros.taxonomy import CLASS_ID, CLASS_NAMES
from bevformer_ros.types import Detections3D


@dataclass(frozen=True)
class Covariances:
    """Of n boxes, in the frame of the boxes. poses: (n, 6, 6) of x, y, z and the turns about x, y, z, in m and rad.
    velocities: (n, 6, 6), of which the first three rows and columns are m/s. Zeros where they are not known."""

    poses: NDArray[np.float64]
    velocities: NDArray[np.float64]

    def turned(self, target_from_source: NDArray[np.float64]) -> Covariances:
        """The same in a frame turned by a rotation (3, 3)."""
        both = np.kron(np.eye(2), target_from_source)
        return Covariances(both @ self.poses @ both.T, both @ self.velocities @ both.T)


@dataclass(frozen=True)
class Deviations:
    """Root mean squares of the errors of boxes that were found."""

    count: int
    """Boxes from which they were measured."""
    radial_m: float
    """Of the centre, along the line of sight."""
    tangential_m: float
    """Of the centre, across the line of sight."""
    height_m: float
    """Of the centre, upwards."""
    heading_rad: float
    """About the vertical axis."""
    velocity_mps: float
    """Along each horizontal axis."""

    def __post_init__(self) -> None:
        lengths = (self.radial_m, self.tangential_m, self.height_m, self.heading_rad, self.velocity_mps)
        if self.count < 1 or not all(np.isfinite(lengths)) or min(lengths) < 0:
            raise ValueError(f"deviations must be finite, not negative, and of at least one box, got {self}")


@dataclass(frozen=True)
class RingDeviations:
    """Of one class in one ring about the car."""

    class_name: str
    ring: int
    """Index into ErrorModel.rings."""
    deviations: Deviations

    def __post_init__(self) -> None:
        if self.class_name not in CLASS_ID:
            raise ValueError(f"class_name is {self.class_name!r}, expected one of {', '.join(CLASS_NAMES)}")


@dataclass(frozen=True)
class ErrorModel:
    """In the BEV frame, about whose origin the rings lie."""

    rings: tuple[float, ...]
    """Outer radii in metres, rising; boxes beyond the last count as in it."""
    entries: tuple[RingDeviations, ...]
    """One for each class and ring with boxes enough; of others nothing is known."""

    def __post_init__(self) -> None:
        if not self.rings or self.rings[0] <= 0 or any(outer <= inner for inner, outer in pairwise(self.rings)):
            raise ValueError(f"rings are {self.rings}, expected rising radii")
        places = [(entry.class_name, entry.ring) for entry in self.entries]
        if len(set(places)) < len(places) or any(not 0 <= ring < len(self.rings) for _, ring in places):
            raise ValueError(f"entries are of {places}, expected each class and ring once, of {len(self.rings)} rings")

    def covariances(self, boxes: Detections3D) -> Covariances:
        """boxes: in the BEV frame."""
        poses, velocities = np.zeros((2, len(boxes), 6, 6))
        known = self._by_place()
        places = boxes.centers[:, :2]
        rings = rings_of(places, self.rings)
        for row, (label, ring, (x, y)) in enumerate(zip(boxes.labels, rings, places, strict=True)):
            found = known.get((CLASS_NAMES[label], int(ring)))
            if found is None:
                continue
            bearing = np.arctan2(y, x)
            sight = np.array([[np.cos(bearing), -np.sin(bearing)], [np.sin(bearing), np.cos(bearing)]])
            poses[row, :2, :2] = sight @ np.diag([found.radial_m**2, found.tangential_m**2]) @ sight.T
            poses[row, 2, 2], poses[row, 5, 5] = found.height_m**2, found.heading_rad**2
            velocities[row, 0, 0] = velocities[row, 1, 1] = found.velocity_mps**2
        return Covariances(poses, velocities)

    def _by_place(self) -> Mapping[tuple[str, int], Deviations]:
        return {(entry.class_name, entry.ring): entry.deviations for entry in self.entries}


def rings_of(places: NDArray[np.float64], rings: tuple[float, ...]) -> NDArray[np.int64]:
    """Indices (n,) of the rings in which places (n, 2) lie, the last for those beyond."""
    distances = np.hypot(places[:, 0], places[:, 1])
    return np.minimum(np.searchsorted(rings, distances), len(rings) - 1)
