"""Streets and where they meet: cross-sections, junctions of the main street with side streets, ways round corners."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bevformer_ros.simulation.road import Road

Array = NDArray[np.float64]

LANE_WIDTH = 3.5
CROSSING_NEAR, CROSSING_FAR = 0.8, 4.0  # where a zebra crossing begins and ends, metres from the crossed street's kerb
STOP_LINE = 4.8  # likewise
_SIDE_TABLE = 500.0
_ROUNDNESS = 0.552  # makes a cubic Bezier curve a quarter circle


@dataclass(frozen=True)
class Section:
    """A street's cross-section as offsets; traffic keeps right: negative offsets drive with increasing station."""

    lanes: tuple[float, ...]
    lane_edge: float
    parking: float
    kerb: float
    pavement_end: float


MAIN = Section(lanes=(-5.25, -1.75, 1.75, 5.25), lane_edge=7.1, parking=8.9, kerb=10.2, pavement_end=14.8)
SIDE = Section(lanes=(-1.75, 1.75), lane_edge=3.6, parking=5.4, kerb=6.7, pavement_end=11.3)


@dataclass(frozen=True, eq=False)
class Street:
    """path: index into the world's paths. first, last: the stations that are populated. junctions: stations of the
    middles of the streets that cross it, whose section is `crossing`."""

    road: Road
    path: int
    section: Section
    first: float
    last: float
    junctions: tuple[float, ...]
    crossing: Section

    def free(self, first: float, last: float, margin: float) -> bool:
        """Whether a range of stations keeps a distance from the carriageways of all crossing streets."""
        reach = self.crossing.kerb + margin
        return all(last < junction - reach or first > junction + reach for junction in self.junctions)


@dataclass(frozen=True)
class Lane:
    """A lane of a street: its offset, and +1 or -1 for the direction in which it is driven."""

    street: Street
    offset: float

    @property
    def direction(self) -> float:
        return 1.0 if self.offset < 0 else -1.0


def side_street(main: Road, junction: float, path: int, length: float) -> Street:
    """A straight street across the main one; its stations grow to the left of the main street's."""
    origin = main.points(junction, 0.0)
    road = Road.straight(origin, float(main.heading(junction)) + np.pi / 2, -_SIDE_TABLE, _SIDE_TABLE)
    return Street(road, path, SIDE, -length, length, (0.0,), MAIN)


def way_round(
    main: Street, side: Street, junction: float, come: Lane, go: Lane, approach: float, departure: float
) -> Road:
    """From a lane of one of the two streets into one of the other, with `approach` metres before the curve, which
    begins at that station, and `departure` metres behind it."""
    on_main, on_side = (come, go) if come.street is main else (go, come)
    reach = turning_reach(on_main.offset)
    corners = {main.path: junction - on_side.offset, side.path: on_main.offset}
    entry = corners[come.street.path] - come.direction * reach
    leave = corners[go.street.path] + go.direction * reach
    ends = [come.street.road.points(entry, come.offset), go.street.road.points(leave, go.offset)]
    pulls = [_forward(come, entry) * reach * _ROUNDNESS, -_forward(go, leave) * reach * _ROUNDNESS]
    share = np.linspace(0.0, 1.0, 16)[:, None]
    curve = (
        (1 - share) ** 3 * ends[0]
        + 3 * (1 - share) ** 2 * share * (ends[0] + pulls[0])
        + 3 * (1 - share) * share**2 * (ends[1] + pulls[1])
        + share**3 * ends[1]
    )
    before = come.street.road.points(entry - come.direction * np.arange(approach, 0.5, -1.0), come.offset)
    after = go.street.road.points(leave + go.direction * np.arange(1.0, departure), go.offset)
    return Road.through(np.concatenate([before, curve, after]))


def turning_reach(main_offset: float) -> float:
    """How far before the corner a turn begins, and how far behind it ends: short from and into an outer lane of the
    main street (to the right), long for an inner one (to the left)."""
    return 8.0 if abs(main_offset) > LANE_WIDTH else 12.0


def side_lane(main_offset: float, outwards: bool) -> float:
    """Offset of the side street's lane in a turn from (outwards) or into a lane of the main street."""
    main_direction = 1.0 if main_offset < 0 else -1.0
    turns_right = abs(main_offset) > LANE_WIDTH
    return (-main_direction if turns_right != outwards else main_direction) * abs(SIDE.lanes[0])


def _forward(lane: Lane, station: float) -> Array:
    heading = lane.street.road.heading(station)
    return lane.direction * np.array([np.cos(heading), np.sin(heading)])
