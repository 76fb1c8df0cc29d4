"""A town from one random stream: streets and junctions about the ego's drive, and everybody in them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bevformer_ros.simulation.crowd import Crowd, Objects, Placed
from bevformer_ros.simulation.junctions import Signals, add_crossers, add_turners
from bevformer_ros.simulation.population import fill_kerbs, fill_lane, fill_pavements, fill_queue
from bevformer_ros.simulation.road import Road
from bevformer_ros.simulation.streets import (
    MAIN,
    SIDE,
    STOP_LINE,
    Lane,
    Street,
    side_lane,
    side_street,
    turning_reach,
    way_round,
)
from bevformer_ros.simulation.timetable import REST, Knots, Timetables, Windows, cruise

Array = NDArray[np.float64]

_FASTEST = 12.0  # m/s
_VIEW_DISTANCE = 150.0
_SIDE_LENGTH = 90.0
_AXLE_TO_MIDDLE = 1.4
_EGO_SIZE = (4.6, 1.9, 1.6)
_FRONT = _AXLE_TO_MIDDLE + _EGO_SIZE[0] / 2
_SAMPLE_STEP = 0.2  # seconds between the moments at which nothing may touch anything


@dataclass(frozen=True)
class EgoDrive:
    """The rear axle follows a path (index into the world's) at a lateral offset, `lane`, from a first station."""

    path: int
    lane: float
    first_station: float
    timetable: Timetables

    def station(self, seconds: ArrayLike) -> Array:
        return self.first_station + self.timetable.at(seconds)[0][..., 0]

    def station_rate(self, seconds: ArrayLike) -> Array:
        return self.timetable.at(seconds)[1][..., 0]


@dataclass(frozen=True)
class Plan:
    """What is settled before there is any street. stops: when the ego waits. turn_at: when its way bends, None if it
    goes straight on. junction: station of the junction where the ego turns or waits, or that it passes."""

    signals: Signals
    knots: Knots
    stops: Windows
    lane: float
    turn_at: float | None
    junction: float

    @classmethod
    def draw(cls, random: np.random.Generator, duration_s: float) -> Plan:
        signals, speed = Signals.draw(random, duration_s), float(random.uniform(7, 10))
        lane = float(random.choice([-1.75, -5.25]))
        turn_at = _draw_turn_time(random, signals, duration_s) if random.random() < 0.36 else None
        stops = tuple(window for window in signals.red if turn_at is None or window[0] < turn_at)
        slow = None if turn_at is None else (float(random.uniform(4.5, 5.5)), turn_at, turn_at + 3.0)
        knots = cruise(random, speed, duration_s, stops, slow)
        halts = halting_stations(knots, stops, duration_s)
        if turn_at is not None:
            bend = float(Timetables.of([knots]).at(turn_at)[0][0])
            junction = bend + turning_reach(lane) + side_lane(lane, outwards=True)
        elif halts:
            junction = halts[0] + _FRONT + STOP_LINE + SIDE.kerb + random.uniform(0.5, 1.5)
        else:
            junction = random.uniform(20, 70)
        return cls(signals, knots, stops, lane, turn_at, float(junction))


def _draw_turn_time(random: np.random.Generator, signals: Signals, duration_s: float) -> float | None:
    for _ in range(20):
        time = float(random.uniform(-1.0, max(2.0, 0.7 * duration_s)))
        if not any(first < time + 5.0 and last > time - 4.0 for first, last in signals.red):
            return time
    return None


def halting_stations(knots: Knots, stops: Windows, duration_s: float) -> list[float]:
    """How far one is each time that one halts during the drive."""
    middles = [(first + last) / 2 for first, last in stops if -6.0 < first < duration_s]
    return [float(distance) for distance in Timetables.of([knots]).at(np.array(middles))[0][..., 0]] if middles else []


@dataclass(frozen=True)
class Town:
    """roads: the paths that objects follow, first the streets'. ego: its drive."""

    streets: tuple[Street, ...]
    roads: tuple[Road, ...]
    ego: EgoDrive
    objects: Objects
    timetables: Timetables

    @classmethod
    def build(cls, random: np.random.Generator, duration_s: float) -> Town:
        plan = Plan.draw(random, duration_s)
        streets = _lay_streets(random, plan, duration_s)
        roads, ego = _send_ego(plan, streets, duration_s)
        seconds = np.arange(-0.6, duration_s + 0.6 + _SAMPLE_STEP, _SAMPLE_STEP).astype(np.float64)
        crowd = Crowd(random, roads, seconds)
        ego_box = crowd.make(
            "car",
            ego.path,
            ego.first_station + _AXLE_TO_MIDDLE,
            ego.lane,
            direction=1.0,
            timetable=crowd.timetable(plan.knots),
            size=_EGO_SIZE,
        )
        _populate(crowd, plan, streets, ego_box, duration_s)
        return cls(streets, tuple(roads), ego, crowd.columns(crowd.placed), Timetables.of(crowd.tables))


def _lay_streets(random: np.random.Generator, plan: Plan, duration_s: float) -> tuple[Street, ...]:
    """The main street, then the one that crosses it at the plan's junction, then the others."""
    driven = float(Timetables.of([plan.knots]).at(duration_s)[0][0])
    ahead = plan.junction if plan.turn_at is not None else driven
    first, last = -_VIEW_DISTANCE, ahead + _VIEW_DISTANCE
    margin = 1.12 * _FASTEST * duration_s + 50.0
    road = Road.winding(random, first - margin, last + margin)
    on_side = 0.0 if plan.turn_at is None else max(0.0, driven - ahead)
    sides, junctions = [side_street(road, plan.junction, 1, _SIDE_LENGTH + on_side)], [plan.junction]
    halts, spacing = halting_stations(plan.knots, plan.stops, duration_s), random.uniform(105, 140)
    for step in (-1, -2, -3, *range(1, 2 + int((last - plan.junction) / spacing))):
        station = plan.junction + step * spacing
        side = side_street(road, station, len(sides) + 1, _SIDE_LENGTH)
        halted_on = any(abs(halt - station) < SIDE.kerb + STOP_LINE + _FRONT for halt in halts)
        inside = first + 20 < station < last - 20
        if inside and not halted_on and all(_apart(side, other) for other in sides):
            sides.append(side)
            junctions.append(station)
    return Street(road, 0, MAIN, first, last, tuple(junctions), SIDE), *sides


def _apart(one: Street, other: Street) -> bool:
    """Whether two side streets keep a distance all along."""
    points = [
        street.road.points(np.arange(street.first - 60.0, street.last + 60.0, 8.0), 0.0) for street in (one, other)
    ]
    return bool(np.square(points[0][:, None] - points[1]).sum(-1).min() > 40.0**2)


def _send_ego(plan: Plan, streets: tuple[Street, ...], duration_s: float) -> tuple[list[Road], EgoDrive]:
    """The streets' roads with the ego's way, if it turns; and its drive."""
    roads, timetable = [street.road for street in streets], Timetables.of([plan.knots])
    if plan.turn_at is None:
        return roads, EgoDrive(0, plan.lane, 0.0, timetable)
    bend, end = (float(timetable.at(time)[0][0]) for time in (plan.turn_at, duration_s + 2.0))
    come, go = Lane(streets[0], plan.lane), Lane(streets[1], side_lane(plan.lane, outwards=True))
    roads.append(way_round(streets[0], streets[1], plan.junction, come, go, bend + 40.0, end - bend + 40.0))
    return roads, EgoDrive(len(roads) - 1, 0.0, 40.0, timetable)


def _populate(crowd: Crowd, plan: Plan, streets: tuple[Street, ...], ego: Placed, duration_s: float) -> None:
    """First those with the oddest ways, then the lanes, then what stands and walks beside them: who would touch
    somebody already there stays away."""
    main, sides = streets[0], streets[1:]
    for side, junction in zip(sides, main.junctions, strict=True):
        if -60 < junction < main.last - 90:
            most = 4 if junction == plan.junction else 2
            add_turners(crowd, main, side, junction, plan.signals, ego, most)
            add_crossers(crowd, main, side, junction, plan.signals, ego)
    odd = list(crowd.placed)
    crowd.admit(_main_traffic(crowd, plan, main, duration_s), [ego, *odd], margin=0.8)
    for side in sides:
        crowd.admit(_side_traffic(crowd, plan, side, duration_s), [ego, *crowd.placed], margin=0.8)
    for street in streets:
        beside = fill_kerbs(crowd, street) + fill_pavements(crowd, street, duration_s)
        crowd.admit(beside, [ego, *odd])


def _main_traffic(crowd: Crowd, plan: Plan, main: Street, duration_s: float) -> list[Placed]:
    placed = []
    for offset in main.section.lanes:
        lane, own = Lane(main, offset), offset == plan.lane
        speed = float(crowd.random.uniform(5.0, _FASTEST))
        knots = plan.knots if own else cruise(crowd.random, speed, duration_s, plan.signals.red)
        timetable = crowd.timetable(knots)
        reach = float(crowd.distances(timetable, duration_s))
        first, last = (main.first - reach, main.last) if lane.direction > 0 else (main.first, main.last + reach)
        entries = fill_lane(crowd, lane, timetable, first, last, (-10.0, 12.0) if own else None)
        halts = halting_stations(knots, plan.stops if own else plan.signals.red, duration_s)
        placed += _off_junctions(entries, main, halts)
    return placed


def _side_traffic(crowd: Crowd, plan: Plan, side: Street, duration_s: float) -> list[Placed]:
    """Those who wait, and cross while the main street is red, and those who drive away on the far side."""
    random, placed = crowd.random, []
    red = plan.signals.red
    green = tuple((first[1] - 2.0, second[0] + 3.5) for first, second in pairwise(red))
    waiting = crowd.timetable(cruise(random, float(random.uniform(5, 6.5)), duration_s, green) if red else REST)
    halts = [0.0, *halting_stations(crowd.tables[waiting], green, duration_s)] if red else []
    for offset in side.section.lanes:
        lane = Lane(side, offset)
        placed += _off_junctions(fill_queue(crowd, lane, waiting), side, halts)
        leaving = crowd.timetable(cruise(random, float(random.uniform(8, 9)), duration_s))
        far = (24.0, side.last) if lane.direction > 0 else (side.first, -24.0)
        placed += fill_lane(crowd, lane, leaving, *far)
    return placed


def _off_junctions(entries: list[Placed], street: Street, halts: list[float]) -> list[Placed]:
    """Without those who would halt on a junction."""
    kept = []
    for entry in entries:
        stations = [entry.station + entry.direction * halt for halt in halts]
        if all(street.free(station, station, STOP_LINE + entry.size[0] / 2) for station in stations):
            kept.append(entry)
    return kept
