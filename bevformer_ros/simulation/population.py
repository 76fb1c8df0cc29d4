"""Who is on a street: traffic in lanes, parked vehicles, work zones, people on the pavements.

Everything in one lane or strip moves by one timetable, so nothing in it ever runs into anything.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bevformer_ros.simulation.crowd import Crowd, Placed
from bevformer_ros.simulation.streets import STOP_LINE, Lane, Street

Array = NDArray[np.float64]

_COUPLING = 1.6  # metres between truck and trailer
_LANE_CLASSES = ("car", "truck", "bus", "motorcycle", "bicycle")
_LANE_WEIGHTS = (0.52, 0.14, 0.12, 0.11, 0.11)
DRIVEN = ("vehicle.moving", "vehicle.stopped")
RIDDEN = ("cycle.with_rider", "cycle.with_rider")
WALKING = ("pedestrian.moving", "pedestrian.standing")
_PARKED = ("vehicle.parked", "vehicle.parked")
_LEFT_ALONE = ("cycle.without_rider", "cycle.without_rider")
_STANDING = ("pedestrian.standing", "pedestrian.standing")


def fill_lane(
    crowd: Crowd, lane: Lane, timetable: int, first: float, last: float, keep_free: tuple[float, float] | None = None
) -> list[Placed]:
    """Vehicles one behind the other from station first to last; where a truck draws a trailer, it follows the truck."""
    random, placed = crowd.random, []
    edge = first + random.uniform(0, 20)
    while edge < last:
        name = str(random.choice(_LANE_CLASSES, p=_LANE_WEIGHTS))
        train = ["trailer", "truck"] if name == "truck" and random.random() < 0.45 else [name]
        sizes = [crowd.size_of(member) for member in train]
        length = sum(size[0] for size in sizes) + _COUPLING * (len(train) - 1)
        if keep_free and edge < keep_free[1] and edge + length > keep_free[0]:
            edge = keep_free[1] + random.uniform(0, 8)
            continue
        members = list(zip(train, sizes, strict=True))
        position, company = edge, crowd.company()
        for member, size in members if lane.direction > 0 else reversed(members):
            placed.append(
                crowd.make(
                    member,
                    lane.street.path,
                    position + size[0] / 2,
                    lane.offset,
                    direction=lane.direction,
                    timetable=timetable,
                    attributes=RIDDEN if member in ("bicycle", "motorcycle") else DRIVEN,
                    size=size,
                    company=company,
                )
            )
            position += size[0] + _COUPLING
        edge += length + random.uniform(8, 34)
    return placed


def fill_queue(crowd: Crowd, lane: Lane, timetable: int) -> list[Placed]:
    """A few vehicles that wait one behind the other at the stop line of a side street."""
    random, placed = crowd.random, []
    street = lane.street
    front = -lane.direction * (street.crossing.kerb + STOP_LINE + random.uniform(0.4, 1.0))
    for _ in range(int(random.integers(0, 5))):
        name = str(random.choice(_LANE_CLASSES, p=_LANE_WEIGHTS))
        size = crowd.size_of(name)
        placed.append(
            crowd.make(
                name,
                street.path,
                front - lane.direction * size[0] / 2,
                lane.offset,
                direction=lane.direction,
                timetable=timetable,
                attributes=RIDDEN if name in ("bicycle", "motorcycle") else DRIVEN,
                size=size,
            )
        )
        front -= lane.direction * (size[0] + random.uniform(1.5, 6.0))
    return placed


def fill_kerbs(crowd: Crowd, street: Street) -> list[Placed]:
    """Both parking lanes in blocks: parked rows, work zones, gaps; nothing near junctions."""
    placed: list[Placed] = []
    for side in (-1.0, 1.0):
        station = street.first
        while station < street.last:
            block = crowd.random.random()
            if block < 0.5:
                station = _park_row(crowd, placed, street, station, side)
            elif block < 0.8:
                station = _build_work_zone(crowd, placed, street, station, side)
            else:
                station += crowd.random.uniform(6, 15)
    return [entry for entry in placed if street.free(entry.station, entry.station, 6.0 + entry.size[0] / 2)]


def _park_row(crowd: Crowd, placed: list[Placed], street: Street, station: float, side: float) -> float:
    heading = 0.0 if side < 0 else np.pi
    for _ in range(int(crowd.random.integers(2, 6))):
        name = str(crowd.random.choice(["car", "truck", "trailer", "motorcycle"], p=[0.68, 0.12, 0.08, 0.12]))
        length, width, height = crowd.size_of(name)
        attributes = _PARKED
        if name == "motorcycle":
            attributes, height = _LEFT_ALONE, 0.78 * height
        placed.append(
            crowd.make(
                name,
                street.path,
                station + length / 2,
                side * street.section.parking,
                heading=heading + crowd.random.normal(0, 0.02),
                attributes=attributes,
                size=(length, width, height),
            )
        )
        station += 1.12 * length + crowd.random.uniform(1.0, 3.0)  # a bend brings neighbours nearer
    return station + 4.0


def _build_work_zone(crowd: Crowd, placed: list[Placed], street: Street, station: float, side: float) -> float:
    """Cones lead in, barriers close the zone towards the traffic, a machine stands behind them."""
    parking, kerb = street.section.parking, street.section.kerb
    inner = side * (parking - 1.2)

    def put(name: str, where: float, offset: float, heading: float = 0.0, resting: str = "") -> None:
        placed.append(crowd.make(name, street.path, where, offset, heading=heading, attributes=(resting, resting)))

    for step in range(4):
        put("traffic_cone", station + 2.0 * step, side * (kerb - 0.3) - side * 0.55 * step)
    station += 8.5
    barriers = int(crowd.random.integers(4, 7))
    for step in range(barriers):
        # A barrier's width is its long side, so it lines the road when it faces across it.
        put("barrier", station + 3.2 * step, inner, -side * np.pi / 2 + crowd.random.normal(0, 0.04))
    heading = crowd.random.choice([0.0, np.pi]) + crowd.random.normal(0, 0.05)
    put("construction_vehicle", station + 1.6 * (barriers - 1), side * (parking + 1.3), heading, "vehicle.parked")
    station += 3.2 * barriers + 0.5
    for step in range(2):
        put("traffic_cone", station + 1.8 * step, inner + side * 0.4 * step)
    return station + 8.0


def fill_pavements(crowd: Crowd, street: Street, duration_s: float) -> list[Placed]:
    """On each, two strips of walkers, and one of people who stand and of bicycles left there. Work zones reach onto
    the pavement, so people keep to its far half; nobody walks as far as a junction."""
    random, kerb = crowd.random, street.section.kerb
    placed: list[Placed] = []
    for side in (-1.0, 1.0):
        for strip, inward in enumerate((2.25, 3.1)):
            speed, direction = random.uniform(0.9, 1.6), 1.0 if strip else -1.0
            timetable = crowd.timetable(((0.0, speed),))
            reach = direction * speed * (duration_s + 1.0)
            station = street.first + random.uniform(0, 10)
            while station < street.last:
                if street.free(min(station, station + reach), max(station, station + reach), 6.0):
                    placed.append(
                        crowd.make(
                            "pedestrian",
                            street.path,
                            station,
                            side * (kerb + inward),
                            direction=direction,
                            timetable=timetable,
                            attributes=WALKING,
                        )
                    )
                station += random.uniform(1.2, 3.0) if random.random() < 0.3 else random.uniform(8, 30)
        station = street.first
        while station < street.last:
            station += random.uniform(6, 30)
            if street.free(station, station, 8.0):
                placed.append(_stand(crowd, street, station, side * (kerb + 4.2)))
    return placed


def _stand(crowd: Crowd, street: Street, station: float, offset: float) -> Placed:
    random = crowd.random
    somebody = random.random() < 0.6
    name, attributes = ("pedestrian", _STANDING) if somebody else ("bicycle", _LEFT_ALONE)
    length, width, height = crowd.size_of(name)
    size = (length, width, height if somebody else 0.78 * height)
    heading = random.uniform(-np.pi, np.pi) if somebody else random.choice([0.0, np.pi]) + random.normal(0, 0.1)
    return crowd.make(name, street.path, station, offset, heading=heading, attributes=attributes, size=size)
