"""Who is on the road: traffic in lanes, parked vehicles, work zones, people on the pavements, and the scenery.

Everything in one lane or strip moves at one speed, so nothing ever runs into anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bevformer_ros.simulation.road import KERB, LANE_CENTERS, PARKING_CENTER, SIDEWALK_END, Road
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
_FACADES: tuple[Colour, ...] = ((178, 158, 138), (150, 110, 92), (196, 190, 178), (134, 138, 146), (172, 132, 104))

FASTEST = 12.0  # m/s
_COUPLING = 1.6  # metres between truck and trailer
_LANE_CLASSES = ("car", "truck", "bus", "motorcycle", "bicycle")
_LANE_WEIGHTS = (0.62, 0.12, 0.08, 0.09, 0.09)


@dataclass(frozen=True)
class Objects:
    """All objects as columns: the state at time zero in road coordinates, and the constant rate along the road.

    headings: angle from the road's heading to the object's. colours: RGB.
    """

    labels: NDArray[np.int64]
    sizes: Array
    stations: Array
    offsets: Array
    station_rates: Array
    headings: Array
    attributes: NDArray[np.int64]
    colours: NDArray[np.int64]


@dataclass(frozen=True)
class Scenery:
    """What is drawn but never detected: centres (n, 3), sizes (n, 3), yaws (n,), colours (n, 3) RGB, kinds (n,)."""

    centers: Array
    sizes: Array
    yaws: Array
    colours: NDArray[np.int64]
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class _Placed:
    label: int
    size: tuple[float, float, float]
    station: float
    offset: float
    station_rate: float
    heading: float
    attribute: int
    colour: Colour


class _Crowd:
    """Collects placed objects, drawing sizes and colours from one random stream."""

    def __init__(self, random: np.random.Generator) -> None:
        self.random = random
        self.placed: list[_Placed] = []

    def size_of(self, name: str) -> tuple[float, float, float]:
        factors = np.clip(self.random.normal(1.0, 0.05, 3), 0.88, 1.12)
        length, width, height = np.array(CLASSES[CLASS_ID[name]].canonical_size) * factors
        return float(length), float(width), float(height)

    def add(
        self,
        name: str,
        station: float,
        offset: float,
        *,
        rate: float = 0.0,
        heading: float = 0.0,
        attribute: str = "",
        size: tuple[float, float, float] | None = None,
    ) -> None:
        paints = _PAINTS[name]
        colour = paints[int(self.random.integers(len(paints)))]
        attribute_id = ATTRIBUTE_ID[attribute] if attribute else NO_ATTRIBUTE
        size = size or self.size_of(name)
        self.placed.append(_Placed(CLASS_ID[name], size, station, offset, rate, heading, attribute_id, colour))

    def columns(self) -> Objects:
        placed = self.placed
        return Objects(
            labels=np.array([entry.label for entry in placed], np.int64),
            sizes=np.array([entry.size for entry in placed]),
            stations=np.array([entry.station for entry in placed]),
            offsets=np.array([entry.offset for entry in placed]),
            station_rates=np.array([entry.station_rate for entry in placed]),
            headings=np.array([entry.heading for entry in placed]),
            attributes=np.array([entry.attribute for entry in placed], np.int64),
            colours=np.array([entry.colour for entry in placed], np.int64),
        )


def populate(
    random: np.random.Generator, ego_lane: float, ego_speed: float, duration_s: float, start: float, end: float
) -> Objects:
    """Fill the stations from start to end for a drive of duration_s seconds; the ego's own place stays free."""
    crowd = _Crowd(random)
    for lane in LANE_CENTERS:
        direction = 1.0 if lane < 0 else -1.0
        speed = ego_speed if lane == ego_lane else random.uniform(5.0, FASTEST)
        reach = speed * duration_s
        first, last = (start - reach, end) if direction > 0 else (start, end + reach)
        _fill_lane(crowd, lane, direction * speed, first, last, keep_free=lane == ego_lane)
    for side in (-1.0, 1.0):
        _fill_parking(crowd, side, start, end)
        _fill_pavement(crowd, side, start, end)
    return crowd.columns()


def _fill_lane(crowd: _Crowd, lane: float, rate: float, first: float, last: float, keep_free: bool) -> None:
    """Vehicles one behind the other; where a truck draws a trailer, the trailer is placed behind it."""
    random = crowd.random
    heading = 0.0 if rate > 0 else np.pi
    edge = first + random.uniform(0, 20)
    while edge < last:
        name = str(random.choice(_LANE_CLASSES, p=_LANE_WEIGHTS))
        train = ["trailer", "truck"] if name == "truck" and random.random() < 0.45 else [name]
        sizes = [crowd.size_of(member) for member in train]
        length = sum(size[0] for size in sizes) + _COUPLING * (len(train) - 1)
        if keep_free and edge - 10 < 0 < edge + length + 12:
            edge = 10.5
            continue
        members = list(zip(train, sizes, strict=True))
        position = edge
        for member, size in members if rate > 0 else reversed(members):
            attribute = "cycle.with_rider" if member in ("bicycle", "motorcycle") else "vehicle.moving"
            crowd.add(member, position + size[0] / 2, lane, rate=rate, heading=heading, attribute=attribute, size=size)
            position += size[0] + _COUPLING
        edge += length + random.uniform(8, 42)


def _fill_parking(crowd: _Crowd, side: float, first: float, last: float) -> None:
    """The kerb lane in blocks: parked rows, work zones, gaps."""
    random = crowd.random
    heading = 0.0 if side < 0 else np.pi
    station = first
    while station < last:
        block = random.random()
        if block < 0.5:
            station = _park_row(crowd, station, side, heading)
        elif block < 0.8:
            station = _build_work_zone(crowd, station, side)
        else:
            station += random.uniform(6, 15)


def _park_row(crowd: _Crowd, station: float, side: float, heading: float) -> float:
    for _ in range(int(crowd.random.integers(2, 6))):
        name = str(crowd.random.choice(["car", "truck", "trailer", "motorcycle"], p=[0.68, 0.12, 0.08, 0.12]))
        length, width, height = crowd.size_of(name)
        attribute = "vehicle.parked"
        if name == "motorcycle":
            attribute, height = "cycle.without_rider", 0.78 * height
        crowd.add(
            name,
            station + length / 2,
            side * PARKING_CENTER,
            heading=heading + crowd.random.normal(0, 0.02),
            attribute=attribute,
            size=(length, width, height),
        )
        station += length + crowd.random.uniform(1.0, 3.0)
    return station + 4.0


def _build_work_zone(crowd: _Crowd, station: float, side: float) -> float:
    """Cones lead in, barriers close the zone towards the traffic, a machine stands behind them."""
    inner = side * (PARKING_CENTER - 1.2)
    for step in range(4):
        crowd.add("traffic_cone", station + 2.0 * step, side * (KERB - 0.3) - side * 0.55 * step)
    station += 8.5
    barriers = int(crowd.random.integers(4, 7))
    for step in range(barriers):
        # A barrier's width is its long side, so it lines the road when it faces across it.
        crowd.add("barrier", station + 3.2 * step, inner, heading=-side * np.pi / 2 + crowd.random.normal(0, 0.04))
    crowd.add(
        "construction_vehicle",
        station + 1.6 * (barriers - 1),
        side * (PARKING_CENTER + 1.45),
        heading=crowd.random.choice([0.0, np.pi]) + crowd.random.normal(0, 0.05),
        attribute="vehicle.parked",
    )
    station += 3.2 * barriers + 0.5
    for step in range(2):
        crowd.add("traffic_cone", station + 1.8 * step, inner + side * 0.4 * step)
    return station + 8.0


def _fill_pavement(crowd: _Crowd, side: float, first: float, last: float) -> None:
    """Two strips of walkers, one of people who stand, and bicycles left at the kerb. Work zones reach onto the
    pavement, so people keep to its far half."""
    random = crowd.random
    for strip, offset in enumerate((12.5, 13.2)):
        rate = random.uniform(0.9, 1.6) * (1 if strip else -1)
        station = first + random.uniform(0, 10)
        while station < last:
            heading = 0.0 if rate > 0 else np.pi
            crowd.add("pedestrian", station, side * offset, rate=rate, heading=heading, attribute="pedestrian.moving")
            station += random.choice([random.uniform(1.2, 3.0), random.uniform(8, 28)])
    station = first
    while station < last:
        station += random.uniform(6, 30)
        standing = random.random() < 0.6
        name, attribute = ("pedestrian", "pedestrian.standing") if standing else ("bicycle", "cycle.without_rider")
        length, width, height = crowd.size_of(name)
        size = (length, width, height if standing else 0.78 * height)
        heading = random.uniform(-np.pi, np.pi) if standing else random.choice([0.0, np.pi]) + random.normal(0, 0.1)
        crowd.add(name, station, side * 14.2, heading=heading, attribute=attribute, size=size)


def build_scenery(random: np.random.Generator, road: Road, first: float, last: float) -> Scenery:
    """Houses, trees and lamp posts along both sides."""
    rows: list[tuple[float, float, tuple[float, float, float], Colour, str]] = []
    for side in (-1.0, 1.0):
        station = first
        while station < last:
            length, depth, height = random.uniform(12, 26), random.uniform(10, 16), random.uniform(6, 20)
            if random.random() < 0.8:
                colour = _FACADES[int(random.integers(len(_FACADES)))]
                offset = side * (SIDEWALK_END + 5.5 + depth / 2 + random.uniform(0, 4))
                rows.append((station + length / 2, offset, (length * 0.92, depth, height), colour, "building"))
            station += length
        for station in np.arange(first + random.uniform(0, 10), last, 17.0).tolist():
            height = random.uniform(4.5, 7.0)
            rows.append((station, side * (SIDEWALK_END + 2.0), (3.2, 3.2, height), (74, 118, 62), "tree"))
        for station in np.arange(first, last, 34.0).tolist():
            rows.append((station, side * (SIDEWALK_END - 0.4), (0.24, 2.4, 7.5), (96, 100, 106), "lamp"))
    stations = np.array([row[0] for row in rows])
    offsets = np.array([row[1] for row in rows])
    sizes = np.array([row[2] for row in rows])
    # Local +y points to the carriageway on both sides, which is where a lamp's arm reaches.
    headings = road.heading(stations) + np.where(offsets > 0, np.pi, 0.0)
    return Scenery(
        centers=np.column_stack([road.points(stations, offsets), sizes[:, 2] / 2]),
        sizes=sizes,
        yaws=headings,
        colours=np.array([row[3] for row in rows], np.int64),
        kinds=tuple(row[4] for row in rows),
    )
