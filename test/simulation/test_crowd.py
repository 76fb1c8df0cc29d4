"""Who touches whom, and who is let in."""

import numpy as np
import pytest

from bevformer_ros.simulation.crowd import Crowd
from bevformer_ros.simulation.road import Road

ROADS = [Road.straight(np.zeros(2), 0.0, -100, 100), Road.straight(np.zeros(2), np.pi / 2, -100, 100)]


@pytest.fixture
def crowd():
    return Crowd(np.random.default_rng(0), ROADS, np.arange(0.0, 10.0, 0.2))


def test_nobody_to_admit(crowd):
    assert crowd.admit([], []) == 0
    assert len(Crowd.columns([]).labels) == 0


@pytest.mark.parametrize(("when", "admitted"), [(0.0, 0), (2.0, 1)])
def test_a_crossing_car_is_admitted_when_the_road_is_free(crowd, when, admitted):
    """Both drive 10 m/s through the origin, one at time zero."""
    timetable = crowd.timetable(((0.0, 10.0),))
    first = crowd.make("car", 0, 0.0, 0.0, direction=1.0, timetable=timetable)
    second = crowd.make("car", 1, 0.0, 0.0, when=when, direction=1.0, timetable=timetable)
    assert crowd.admit([second], [first]) == admitted


@pytest.mark.parametrize(("gap", "admitted"), [(0.3, 0), (0.5, 1)])
def test_margin(crowd, gap, admitted):
    first = crowd.make("barrier", 0, 0.0, 0.0, size=(1.0, 1.0, 1.0))
    second = crowd.make("barrier", 0, 1.0 + gap, 0.0, size=(1.0, 1.0, 1.0))
    assert crowd.admit([second], [first], margin=0.4) == admitted


def test_company_stays_out_together(crowd):
    there = crowd.make("car", 0, 0.0, 0.0)
    company = crowd.company()
    pair = [crowd.make("car", 0, station, 0.0, company=company) for station in (1.0, 30.0)]
    assert crowd.admit([*pair, crowd.make("car", 0, 60.0, 0.0)], [there]) == 1
