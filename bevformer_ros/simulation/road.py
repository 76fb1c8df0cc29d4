"""The road: a smooth curve that carries everything else by station (metres along it) and lateral offset."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline

Array = NDArray[np.float64]

LANE_WIDTH = 3.5
LANE_CENTERS = (-5.25, -1.75, 1.75, 5.25)  # traffic keeps right: negative offsets drive with increasing station
PARKING_CENTER = 8.9
KERB = 10.2
SIDEWALK_END = 14.8

_TABLE_STEP = 0.5


@dataclass(frozen=True)
class Road:
    """Centre line whose heading is a sum of sines of the station; left is positive lateral offset.

    amplitudes (rad), wavelengths (m) and phases (rad) describe the heading; start, end: the drivable stations.
    """

    amplitudes: Array
    wavelengths: Array
    phases: Array
    start: float
    end: float
    _spline: CubicSpline

    @classmethod
    def make(cls, random: np.random.Generator, start: float, end: float) -> Road:
        """A winding road; its radius of curvature never falls below about 45 m."""
        wavelengths = np.array([random.uniform(110, 160), random.uniform(220, 320)])
        amplitudes = np.array([random.uniform(0.10, 0.16), random.uniform(0.25, 0.45)])
        phases = random.uniform(0, 2 * np.pi, 2)
        stations = np.arange(start, end + _TABLE_STEP, _TABLE_STEP)
        headings = _heading(stations, amplitudes, wavelengths, phases)
        middle_headings = _heading(stations[:-1] + _TABLE_STEP / 2, amplitudes, wavelengths, phases)
        directions = np.stack([np.cos(headings), np.sin(headings)], axis=-1)
        middles = np.stack([np.cos(middle_headings), np.sin(middle_headings)], axis=-1)
        simpson_steps = _TABLE_STEP / 6 * (directions[:-1] + 4 * middles + directions[1:])
        positions = np.concatenate([np.zeros((1, 2)), np.cumsum(simpson_steps, axis=0)])
        return cls(amplitudes, wavelengths, phases, start, end, CubicSpline(stations, positions))

    def heading(self, stations: ArrayLike) -> Array:
        return _heading(stations, self.amplitudes, self.wavelengths, self.phases)

    def curvature(self, stations: ArrayLike) -> Array:
        angles = np.asarray(stations)[..., None] * 2 * np.pi / self.wavelengths + self.phases
        return (self.amplitudes * 2 * np.pi / self.wavelengths * np.cos(angles)).sum(-1)

    def points(self, stations: ArrayLike, offsets: ArrayLike) -> Array:
        """World positions (..., 2)."""
        heading = self.heading(stations)
        left = np.stack([-np.sin(heading), np.cos(heading)], axis=-1)
        return self._spline(stations) + np.asarray(offsets)[..., None] * left

    def velocities(self, stations: ArrayLike, offsets: ArrayLike, station_rates: ArrayLike) -> Array:
        """World velocities (..., 2): the exact time derivative of `points` where stations move at station_rates."""
        heading = self.heading(stations)
        forward = np.stack([np.cos(heading), np.sin(heading)], axis=-1)
        speeds = np.asarray(station_rates) * (1 - self.curvature(stations) * np.asarray(offsets))
        return speeds[..., None] * forward


def _heading(stations: ArrayLike, amplitudes: Array, wavelengths: Array, phases: Array) -> Array:
    angles = np.asarray(stations)[..., None] * 2 * np.pi / wavelengths + phases
    return (amplitudes * np.sin(angles)).sum(-1)
