"""Everybody and everything that is detected, as columns; where each is at any time; and who touches whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bevformer_ros import geometry
from bevformer_ros.simulation.road import Road
from bevformer_ros.simulation.timetable import REST, Knots, Timetables
from bevformer_ros.taxonomy import ATTRIBUTE_ID, CLASS_ID, CLASSES, NO_ATTRIBUTE

Array = NDArray[np.float64]
Colour = tuple[int, int, int]  # RGB

_PAINTS: dict[str, tuple[Colour, ...]] = {
    "car": (
        (178, 34, 40),
        (36, 82, 158),
        (225, 226, 228),
        (60, 64, 70),
        (150, 154, 160),
        (28, 112, 84),
        (214, 152, 38),
    ),
    "truck": ((190, 62, 44), (44, 92, 150), (230, 232, 234), (62, 120, 70)),
    "bus": ((222, 96, 58), (58, 132, 172), (232, 190, 60)),
    "trailer": ((214, 216, 220), (196, 150, 96), (132, 160, 186)),
    "construction_vehicle": ((244, 186, 32), (236, 160, 24)),
    "motorcycle": ((150, 24, 30), (30, 34, 44), (28, 76, 140)),
    "bicycle": ((200, 40, 60), (40, 140, 90), (60, 70, 90)),
    "pedestrian": ((196, 62, 62), (56, 96, 176), (236, 236, 230), (92, 132, 70), (226, 178, 60), (120, 70, 130)),
    "traffic_cone": ((242, 104, 24),),
    "barrier": ((238, 108, 36),),
}
_MOVES = 0.05  # m/s from which on a thing counts as moving


@dataclass(frozen=True)
class Objects:
    """All objects as columns of n. Each follows the path `paths` (index into the world's) at a lateral offset; its
    station is stations + directions * the distance of its timetable (index into the world's). headings: the angle
    from the path's heading. moving, resting: the attribute while it moves and while it does not. colours: RGB."""

    labels: NDArray[np.int64]
    sizes: Array
    paths: NDArray[np.int64]
    stations: Array
    offsets: Array
    directions: Array
    timetables: NDArray[np.int64]
    headings: Array
    moving: NDArray[np.int64]
    resting: NDArray[np.int64]
    colours: NDArray[np.int64]


@dataclass(frozen=True)
class Tracks:
    """Where n boxes are at T times: positions (T, n, 2), yaws (T, n), velocities (T, n, 2), rates (T, n) of station."""

    positions: Array
    yaws: Array
    velocities: Array
    rates: Array


def follow(objects: Objects, roads: Sequence[Road], timetables: Timetables, seconds: ArrayLike) -> Tracks:
    """The tracks of all objects at times (T,)."""
    distances, speeds = timetables.at(np.asarray(seconds))
    rates = objects.directions * speeds[:, objects.timetables]
    stations = objects.stations + objects.directions * distances[:, objects.timetables]
    positions, velocities = np.zeros((*stations.shape, 2)), np.zeros((*stations.shape, 2))
    yaws = np.zeros(stations.shape)
    for path in np.unique(objects.paths):
        own = objects.paths == path
        place = (stations[:, own], objects.offsets[own])
        positions[:, own] = roads[path].points(*place)
        velocities[:, own] = roads[path].velocities(*place, rates[:, own])
        yaws[:, own] = roads[path].heading(stations[:, own])
    return Tracks(positions, geometry.wrap_angle(yaws + objects.headings), velocities, rates)


@dataclass(frozen=True)
class Placed:
    """One row of Objects. company: what shares this number stays or goes together."""

    label: int
    size: tuple[float, float, float]
    path: int
    station: float
    offset: float
    direction: float
    timetable: int
    heading: float
    moving: int
    resting: int
    colour: Colour
    company: int


class Crowd:
    """Collects objects, drawing sizes and colours from one random stream, and lets nobody in who would touch those
    who came before."""

    def __init__(self, random: np.random.Generator, roads: list[Road], seconds: Array) -> None:
        self.random = random
        self.roads = roads
        self.seconds = seconds
        self.tables: list[Knots] = [REST]
        self.placed: list[Placed] = []
        self._companies = 0

    def timetable(self, knots: Knots) -> int:
        self.tables.append(knots)
        return len(self.tables) - 1

    def distances(self, timetable: int, seconds: ArrayLike) -> Array:
        """How far one is at times (...), from where it is at time zero."""
        return Timetables.of(self.tables[timetable : timetable + 1]).at(seconds)[0][..., 0]

    def company(self) -> int:
        self._companies += 1
        return self._companies

    def size_of(self, name: str) -> tuple[float, float, float]:
        factors = np.clip(self.random.normal(1.0, 0.05, 3), 0.88, 1.12)
        length, width, height = np.array(CLASSES[CLASS_ID[name]].canonical_size) * factors
        return float(length), float(width), float(height)

    def make(
        self,
        name: str,
        path: int,
        station: float,
        offset: float,
        *,
        when: float = 0.0,
        direction: float = 0.0,
        timetable: int = 0,
        heading: float = 0.0,
        attributes: tuple[str, str] = ("", ""),
        size: tuple[float, float, float] | None = None,
        company: int | None = None,
    ) -> Placed:
        """An object that is at the station at the time `when`. attributes: while moving and while at rest. A
        direction of -1 turns the object round."""
        paints = _PAINTS[name]
        colour = paints[int(self.random.integers(len(paints)))]
        moving, resting = (ATTRIBUTE_ID[attribute] if attribute else NO_ATTRIBUTE for attribute in attributes)
        heading += np.pi if direction < 0 else 0.0
        company = self.company() if company is None else company
        size = size or self.size_of(name)
        station -= direction * float(self.distances(timetable, when)) if when else 0.0
        return Placed(
            CLASS_ID[name], size, path, station, offset, direction, timetable, heading, moving, resting, colour, company
        )

    def admit(self, newcomers: list[Placed], others: list[Placed], margin: float = 0.4) -> int:
        """Take in the newcomers whose company never comes nearer than margin to any of the others; how many."""
        unwelcome = set()
        if newcomers and others:
            mine, theirs = self.columns(newcomers), self.columns(others)
            timetables = Timetables.of(self.tables)
            tracks = [follow(objects, self.roads, timetables, self.seconds) for objects in (mine, theirs)]
            touched = touches(tracks[0], mine.sizes, tracks[1], theirs.sizes, margin)
            unwelcome = {entry.company for entry, hit in zip(newcomers, touched, strict=True) if hit}
        welcome = [entry for entry in newcomers if entry.company not in unwelcome]
        self.placed += welcome
        return len(welcome)

    @staticmethod
    def columns(placed: Sequence[Placed]) -> Objects:
        def integers(name: str) -> NDArray[np.int64]:
            return np.array([getattr(entry, name) for entry in placed], np.int64)

        def floats(name: str) -> Array:
            return np.array([getattr(entry, name) for entry in placed], np.float64)

        return Objects(
            labels=integers("label"),
            sizes=floats("size").reshape(-1, 3),
            paths=integers("path"),
            stations=floats("station"),
            offsets=floats("offset"),
            directions=floats("direction"),
            timetables=integers("timetable"),
            headings=floats("heading"),
            moving=integers("moving"),
            resting=integers("resting"),
            colours=integers("colour").reshape(-1, 3),
        )


def attributes_of(objects: Objects, rates: Array) -> NDArray[np.int64]:
    """(n,) attributes at station rates (n,)."""
    return np.where(np.abs(rates) > _MOVES, objects.moving, objects.resting)


def touches(first: Tracks, first_sizes: Array, second: Tracks, second_sizes: Array, margin: float) -> NDArray[np.bool_]:
    """(n,): which of the first boxes comes nearer than margin to one of the second (m) at any of the times."""
    radii = np.linalg.norm(first_sizes[:, None, :2], axis=-1) + np.linalg.norm(second_sizes[None, :, :2], axis=-1)
    apart = first.positions[:, :, None] - second.positions[:, None]
    near = np.square(apart).sum(-1) < np.square(radii / 2 + margin)
    time, one, other = np.nonzero(near)
    plans = [
        _plans(tracks.positions[time, row], tracks.yaws[time, row], sizes[row, :2] / 2 + margin / 2)
        for tracks, sizes, row in ((first, first_sizes, one), (second, second_sizes, other))
    ]
    touched = np.zeros(len(first_sizes), np.bool_)
    touched[one[overlap(*plans)]] = True
    return touched


def _plans(positions: Array, yaws: Array, halves: Array) -> Array:
    """Corners (k, 4, 2), going round, of boxes with half lengths and widths (k, 2)."""
    forward = np.stack([np.cos(yaws), np.sin(yaws)], axis=-1) * halves[:, :1]
    left = np.stack([-np.sin(yaws), np.cos(yaws)], axis=-1) * halves[:, 1:]
    offsets = [forward + left, left - forward, -forward - left, forward - left]
    return positions[:, None] + np.stack(offsets, axis=1)


def overlap(first: Array, second: Array) -> NDArray[np.bool_]:
    """(k,): whether rectangles (k, 4, 2) overlap: no side of either separates them."""
    apart = np.zeros(len(first), np.bool_)
    for own in (first, second):
        for axis in (own[:, 1] - own[:, 0], own[:, 2] - own[:, 1]):
            mine, theirs = np.einsum("kcd,kd->kc", first, axis), np.einsum("kcd,kd->kc", second, axis)
            apart |= (mine.max(1) <= theirs.min(1)) | (theirs.max(1) <= mine.min(1))
    return ~apart
