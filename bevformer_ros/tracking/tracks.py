"""What the tracker gives: boxes with an identity."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bevformer_ros.types import Detections3D

# Rows and columns of Tracks3D.covariances.
POSITION, VELOCITY = slice(0, 2), slice(2, 4)


@dataclass(frozen=True)
class Tracks3D:
    """Tracked boxes at one stamp, in the frame the producer states (the tracker: the BEV frame).

    boxes: (n,) as filtered, their velocities too. ids: (n,) positive, one object's from stamp to stamp, never given
    twice. covariances: (n, 4, 4) of x, y, vx, vy in m and m/s. z_variances, yaw_variances: (n,) in m² and rad².
    model_velocities: (n, 2) m/s, what the model said of the last box. coasted_s: (n,) seconds since that box, 0 where
    this set has one.
    """

    boxes: Detections3D
    ids: NDArray[np.int64]
    covariances: NDArray[np.float64]
    z_variances: NDArray[np.float64]
    yaw_variances: NDArray[np.float64]
    model_velocities: NDArray[np.float64]
    coasted_s: NDArray[np.float64]

    def __post_init__(self) -> None:
        count = len(self.boxes)
        for name, shape in _SHAPES.items():
            found = getattr(self, name).shape
            if found != (count, *shape):
                raise ValueError(f"{name} has shape {found}, expected {(count, *shape)}")
        if len(np.unique(self.ids)) != count or (self.ids < 1).any():
            raise ValueError(f"ids must be positive and differ, got {self.ids.tolist()}")
        if (np.diagonal(self.covariances, axis1=1, axis2=2) < 0).any() or not np.isfinite(self.covariances).all():
            raise ValueError("covariances must be finite, with a diagonal that is not negative")

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def stamp_ns(self) -> int:
        return self.boxes.stamp_ns

    @classmethod
    def empty(cls, stamp_ns: int) -> Tracks3D:
        floats = {name: np.zeros((0, *shape)) for name, shape in _SHAPES.items() if name != "ids"}
        return cls(Detections3D.empty(stamp_ns), np.zeros(0, np.int64), **floats)

    def select(self, rows: NDArray) -> Tracks3D:
        """The tracks that a boolean mask (n,) or an index array names."""
        return replace(self, boxes=self.boxes.select(rows), **{name: getattr(self, name)[rows] for name in _SHAPES})

    def transformed(self, target_from_source: NDArray[np.float64]) -> Tracks3D:
        """The same tracks in another frame whose z axis is about parallel, as Detections3D.transformed."""
        flat = target_from_source[:2, :2]
        rotation = np.kron(np.eye(2), flat)
        return replace(
            self,
            boxes=self.boxes.transformed(target_from_source),
            covariances=rotation @ self.covariances @ rotation.T,
            model_velocities=self.model_velocities @ flat.T,
        )


_SHAPES: dict[str, tuple[int, ...]] = {
    "ids": (),
    "covariances": (4, 4),
    "z_variances": (),
    "yaw_variances": (),
    "model_velocities": (2,),
    "coasted_s": (),
}
