"""Streets: ways round corners begin and end in their lanes and bend no more sharply than a car can."""

import numpy as np
import pytest

from bevformer_ros.simulation.road import Road
from bevformer_ros.simulation.streets import MAIN, SIDE, Lane, Street, side_lane, side_street, way_round


@pytest.fixture(scope="module")
def streets():
    road = Road.winding(np.random.default_rng(3), -300.0, 300.0)
    return Street(road, 0, MAIN, -200.0, 200.0, (30.0,), SIDE), side_street(road, 30.0, 1, 90.0)


@pytest.mark.parametrize(
    ("first", "last", "free"), [(0.0, 10.0, True), (0.0, 22.0, False), (25.0, 35.0, False), (50.0, 60.0, True)]
)
def test_free_of_junctions(streets, first, last, free):
    assert streets[0].free(first, last, margin=5.0) == free


@pytest.mark.parametrize("outwards", [True, False])
@pytest.mark.parametrize("offset", MAIN.lanes)
def test_ways_round_the_corner(streets, offset, outwards):
    main, side = streets
    lanes = Lane(main, offset), Lane(side, side_lane(offset, outwards))
    come, go = lanes if outwards else lanes[::-1]
    way = way_round(main, side, 30.0, come, go, approach=20.0, departure=30.0)
    for lane, station in ((come, 0.0), (go, way.end)):
        stations = np.arange(-90.0, 90.0, 0.25)
        gaps = np.linalg.norm(lane.street.road.points(stations, lane.offset) - way.points(station, 0.0), axis=1)
        assert gaps.min() < 0.2
        along = lane.street.road.heading(stations[gaps.argmin()])
        assert np.cos(along - way.heading(station)) * lane.direction > 0.99
    headings = np.unwrap(way.heading(np.arange(0.0, way.end, 0.5)))
    assert np.abs(np.diff(headings)).max() < 0.5 / 5.0  # no radius under five metres
    turned = headings[-1] - headings[0]
    assert (turned < 0) == (abs(offset) > 3.5)  # right from and into outer lanes
