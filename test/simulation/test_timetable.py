"""Timetables: distances are the integrals of speeds, and drives stop when they must."""

import numpy as np
import pytest

from bevformer_ros.simulation.timetable import REST, Timetables, cruise, walk


@pytest.mark.parametrize(
    ("knots", "seconds", "distance", "speed"),
    [
        (REST, 7.0, 0.0, 0.0),
        (((0.0, 3.0),), 2.0, 6.0, 3.0),
        (((0.0, 3.0),), -2.0, -6.0, 3.0),
        (((0.0, 0.0), (2.0, 4.0)), 1.0, 1.0, 2.0),  # a half times 2 m/s^2 times 1 s^2
        (((0.0, 0.0), (2.0, 4.0)), 5.0, 16.0, 4.0),  # 4 m while it gathers speed, 12 m after
        (((-2.0, 4.0), (2.0, 0.0)), 2.0, 2.0, 0.0),
    ],
)
def test_distances_and_speeds(knots, seconds, distance, speed):
    found = Timetables.of([REST, knots]).at(seconds)
    np.testing.assert_allclose(found, [[0.0, distance], [0.0, speed]], atol=1e-9)


def test_many_times_at_once():
    distances, speeds = Timetables.of([REST, walk(1.0, 8.0, 1.6), ((0.0, 2.0),)]).at(np.linspace(-1, 10, 5))
    assert distances.shape == speeds.shape == (5, 3)


def test_a_walk_goes_as_far_as_it_should():
    distances, speeds = Timetables.of([walk(2.0, 9.0, 1.5)]).at(np.array([2.0, 30.0]))
    np.testing.assert_allclose(distances[:, 0], [0.0, 9.0], atol=1e-9)
    np.testing.assert_allclose(speeds, 0.0)


def test_a_cruise_stops_and_slows():
    knots = cruise(np.random.default_rng(0), 9.0, 40.0, stops=((10.0, 18.0),), slow=(5.0, 30.0, 33.0))
    _, speeds = Timetables.of([knots]).at(np.arange(0.0, 40.0, 0.25))
    speeds = speeds[:, 0]
    assert (speeds >= 0).all()
    assert (speeds[4 * 15 : 4 * 18 - 1] == 0).all()
    assert speeds[: 4 * 9].min() > 7.5
    assert speeds[4 * 31 : 4 * 32].max() <= 5.0
    assert np.abs(np.diff(speeds)).max() <= 0.25 * 2.6
