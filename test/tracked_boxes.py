"""Boxes for tests of the tracker."""

from __future__ import annotations

import numpy as np

from bevformer_ros.taxonomy import CLASS_ID, NO_ATTRIBUTE
from bevformer_ros.types import Detections3D


def boxes_at(stamp_ns, *positions, velocities=None, scores=0.9, name="car", yaw=0.0) -> Detections3D:
    """Boxes of one class, 4 m x 2 m x 1.5 m, at positions (x, y); standing where no velocities are given."""
    count = len(positions)
    return Detections3D(
        stamp_ns,
        centers=np.column_stack([np.array(positions, float).reshape(-1, 2), np.full(count, 0.75)]),
        sizes=np.tile([4.0, 2.0, 1.5], (count, 1)),
        yaws=np.full(count, float(yaw)),
        velocities=np.zeros((count, 2)) if velocities is None else np.array(velocities, float),
        scores=np.broadcast_to(np.array(scores, float), count).copy(),
        labels=np.full(count, CLASS_ID[name]),
        attributes=np.full(count, NO_ATTRIBUTE),
        from_proposal=np.zeros(count, np.bool_),
    )
