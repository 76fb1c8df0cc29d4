"""Attributes for boxes whose model knows none, as the official evaluation of camera models guesses them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bevformer_ros.taxonomy import ATTRIBUTE_ID, CLASS_NAMES, NO_ATTRIBUTE
from bevformer_ros.types import Detections3D

_MOVES_ABOVE = 0.2  # m/s

# Class -> attribute where it moves, where it stands.
_GUESSES = {
    "bicycle": ("cycle.with_rider", "cycle.without_rider"),
    "bus": ("vehicle.moving", "vehicle.stopped"),
    "car": ("vehicle.moving", "vehicle.parked"),
    "construction_vehicle": ("vehicle.moving", "vehicle.parked"),
    "motorcycle": ("cycle.with_rider", "cycle.without_rider"),
    "pedestrian": ("pedestrian.moving", "pedestrian.standing"),
    "trailer": ("vehicle.moving", "vehicle.parked"),
    "truck": ("vehicle.moving", "vehicle.parked"),
}
_TABLE = np.array(
    [
        [ATTRIBUTE_ID[name] for name in _GUESSES[entry]] if entry in _GUESSES else [NO_ATTRIBUTE] * 2
        for entry in CLASS_NAMES
    ]
)


def with_guessed_attributes(boxes: Detections3D) -> Detections3D:
    """The same boxes; those without an attribute get the one that their class and speed suggest."""
    stands = (np.linalg.norm(boxes.velocities, axis=1) <= _MOVES_ABOVE).astype(np.int64)
    guesses = _TABLE[boxes.labels, stands]
    return replace(boxes, attributes=np.where(boxes.attributes == NO_ATTRIBUTE, guesses, boxes.attributes))
