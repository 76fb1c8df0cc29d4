"""Houses, trees and lamp posts along the streets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from bevformer_ros import geometry
from bevformer_ros.simulation.crowd import Colour, overlap
from bevformer_ros.simulation.streets import Street

Array = NDArray[np.float64]

_FACADES: tuple[Colour, ...] = ((178, 158, 138), (150, 110, 92), (196, 190, 178), (134, 138, 146), (172, 132, 104))


@dataclass(frozen=True)
class Scenery:
    """What is drawn but never detected: centres (n, 3), sizes (n, 3), yaws (n,), colours (n, 3) RGB, kinds (n,)."""

    centers: Array
    sizes: Array
    yaws: Array
    colours: NDArray[np.int64]
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class _Row:
    station: float
    offset: float
    size: tuple[float, float, float]
    colour: Colour
    kind: str


def build_scenery(random: np.random.Generator, streets: Sequence[Street]) -> Scenery:
    """Along both sides of every street; what would stand in a street or in a house is left out."""
    centers, sizes, yaws, colours, kinds = [], [], [], [], []
    plans: Array = np.zeros((0, 4, 2))
    for street in streets:
        rows = _rows(random, street)
        offsets = np.array([row.offset for row in rows])
        stations, size = np.array([row.station for row in rows]), np.array([row.size for row in rows])
        # Local +y points to the carriageway on both sides, which is where a lamp's arm reaches.
        yaw = street.road.heading(stations) + np.where(offsets > 0, np.pi, 0.0)
        center = np.column_stack([street.road.points(stations, offsets), size[:, 2] / 2])
        plan = geometry.box_corners(center, size, yaw)[:, [0, 1, 5, 4], :2]
        stands_free = ~np.any([_stand_in(plan, other) for other in streets], axis=0)
        for row in np.flatnonzero(stands_free):
            if overlap(np.broadcast_to(plan[row], (len(plans), 4, 2)), plans).any():
                continue
            plans = np.concatenate([plans, plan[row : row + 1]])
            centers.append(center[row])
            sizes.append(size[row])
            yaws.append(yaw[row])
            colours.append(rows[row].colour)
            kinds.append(rows[row].kind)
    return Scenery(np.array(centers), np.array(sizes), np.array(yaws), np.array(colours, np.int64), tuple(kinds))


def _stand_in(plans: Array, street: Street) -> NDArray[np.bool_]:
    """(n,): whether any corner of a plan (n, 4, 2), or its middle, lies on the street or its pavement's inner part."""
    middles = street.road.points(np.arange(street.first - 60.0, street.last + 60.0, 1.0), 0.0)
    points = np.concatenate([plans, plans.mean(axis=1, keepdims=True)], axis=1)
    distances, _ = cKDTree(middles).query(points, distance_upper_bound=street.section.pavement_end)
    return np.asarray((distances < street.section.pavement_end - 1.8).any(axis=1))


def _rows(random: np.random.Generator, street: Street) -> list[_Row]:
    rows = []
    edge, first, last = street.section.pavement_end, street.first, street.last
    for side in (-1.0, 1.0):
        station = first
        while station < last:
            length, depth, height = random.uniform(12, 26), random.uniform(10, 16), random.uniform(6, 20)
            if random.random() < 0.8:
                colour = _FACADES[int(random.integers(len(_FACADES)))]
                offset = side * (edge + 5.5 + depth / 2 + random.uniform(0, 4))
                rows.append(_Row(station + length / 2, offset, (length * 0.92, depth, height), colour, "building"))
            station += length
    for side in (-1.0, 1.0):
        for station in np.arange(first + random.uniform(0, 10), last, 17.0).tolist():
            height = random.uniform(4.5, 7.0)
            rows.append(_Row(station, side * (edge + 2.0), (3.2, 3.2, height), (74, 118, 62), "tree"))
        for station in np.arange(first, last, 34.0).tolist():
            rows.append(_Row(station, side * (edge - 0.4), (0.24, 2.4, 7.5), (96, 100, 106), "lamp"))
    return rows
