"""What happens where streets meet: people on zebra crossings, vehicles that turn in and out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bevformer_ros.simulation.crowd import Crowd, Placed
from bevformer_ros.simulation.population import DRIVEN, RIDDEN, WALKING
from bevformer_ros.simulation.streets import CROSSING_FAR, CROSSING_NEAR, Lane, Street, side_lane, way_round
from bevformer_ros.simulation.timetable import Windows, cruise, walk

_APPROACH, _DEPARTURE = 60.0, 150.0  # metres before and behind the curve
_TRIES = 10


@dataclass(frozen=True)
class Signals:
    """When the main street stands; without windows it never does, and the side streets wait."""

    red: Windows

    def is_red(self, seconds: float) -> bool:
        return any(first <= seconds <= last for first, last in self.red)

    @classmethod
    def draw(cls, random: np.random.Generator, duration_s: float) -> Signals:
        """Half of all worlds have lights at all."""
        if random.random() < 0.5:
            return cls(())
        period, length = random.uniform(26, 34), random.uniform(10, 12)
        start = random.uniform(0, period) - period
        starts = np.arange(start, duration_s + period, period).tolist()
        return cls(tuple((first, first + length) for first in starts))


def add_crossers(crowd: Crowd, main: Street, side: Street, junction: float, signals: Signals, ego: Placed) -> None:
    """People on the four zebra crossings: over the main street while it is red, over the side street otherwise."""
    random = crowd.random
    for _ in range(_TRIES):
        over_main = bool(random.random() < 0.5)
        crossed, along = (main, side) if over_main else (side, main)
        start, speed = random.uniform(-8.0, crowd.seconds[-1] - 3.0), random.uniform(1.1, 1.7)
        width = 2 * (crossed.section.kerb + 1.2)
        if signals.red and not signals.is_red(start) == over_main == signals.is_red(start + width / speed):
            continue
        direction = random.choice([-1.0, 1.0])
        beside = along.section.kerb + random.uniform(CROSSING_NEAR + 0.4, CROSSING_FAR - 0.4)
        newcomer = crowd.make(
            "pedestrian",
            along.path,
            (0.0 if over_main else junction) - direction * width / 2,
            random.choice([-1.0, 1.0]) * beside,
            when=start,
            direction=direction,
            timetable=crowd.timetable(walk(start, width, speed)),
            attributes=WALKING,
        )
        crowd.admit([newcomer], [ego, *crowd.placed])


def add_turners(
    crowd: Crowd, main: Street, side: Street, junction: float, signals: Signals, ego: Placed, most: int
) -> None:
    """Vehicles that turn from the main street into the side street while it is green, or the other way while red."""
    random = crowd.random
    added = 0
    for _ in range(_TRIES):
        at, speed = random.uniform(-2.0, crowd.seconds[-1]), random.uniform(6.0, 9.0)
        outwards = bool(random.random() < 0.5)
        if signals.red and outwards in (signals.is_red(at), signals.is_red(at + 3.0)):
            continue
        on_main = Lane(main, float(random.choice(main.section.lanes)))
        on_side = Lane(side, side_lane(on_main.offset, outwards))
        come, go = (on_main, on_side) if outwards else (on_side, on_main)
        way = way_round(main, side, junction, come, go, _APPROACH, _DEPARTURE)
        knots = cruise(random, speed, float(crowd.seconds[-1]), slow=(random.uniform(4.5, 5.5), at, at + 3.0))
        name = str(random.choice(["car", "motorcycle", "bicycle"], p=[0.8, 0.1, 0.1]))
        crowd.roads.append(way)
        newcomer = crowd.make(
            name,
            len(crowd.roads) - 1,
            _APPROACH,
            0.0,
            when=at,
            direction=1.0,
            timetable=crowd.timetable(knots),
            attributes=DRIVEN if name == "car" else RIDDEN,
        )
        driven = crowd.distances(newcomer.timetable, crowd.seconds)
        on_its_way = newcomer.station + driven[0] > 0 and newcomer.station + driven[-1] < way.end
        if not on_its_way or not crowd.admit([newcomer], [ego, *crowd.placed], margin=1.0):
            crowd.roads.pop()
            continue
        added += 1
        if added == most:
            return
