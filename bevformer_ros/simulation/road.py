"""Smooth curves that carry everything else by station (metres along them) and lateral offset."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline

Array = NDArray[np.float64]

_TABLE_STEP = 0.5


@dataclass(frozen=True, eq=False)
class Road:
    """A curve in the world; left is positive lateral offset. start, end: the stations it is made for."""

    start: float
    end: float
    _spline: CubicSpline

    @classmethod
    def winding(cls, random: np.random.Generator, start: float, end: float) -> Road:
        """A road whose heading is a sum of sines; its radius of curvature never falls below about 45 m."""
        wavelengths = np.array([random.uniform(110, 160), random.uniform(220, 320)])
        amplitudes = np.array([random.uniform(0.10, 0.16), random.uniform(0.25, 0.45)])
        phases = random.uniform(0, 2 * np.pi, 2)
        stations = np.arange(start, end + _TABLE_STEP, _TABLE_STEP)
        middles = stations[:-1] + _TABLE_STEP / 2
        directions, middle_directions = (
            _directions((amplitudes * np.sin(where[:, None] * 2 * np.pi / wavelengths + phases)).sum(-1))
            for where in (stations, middles)
        )
        simpson_steps = _TABLE_STEP / 6 * (directions[:-1] + 4 * middle_directions + directions[1:])
        positions = np.concatenate([np.zeros((1, 2)), np.cumsum(simpson_steps, axis=0)])
        return cls(start, end, CubicSpline(stations, positions))

    @classmethod
    def straight(cls, origin: Array, heading: float, start: float, end: float) -> Road:
        """A line whose station zero is the origin (2,)."""
        stations = np.linspace(start, end, 4)
        return cls(start, end, CubicSpline(stations, origin + stations[:, None] * _directions(np.array(heading))))

    @classmethod
    def through(cls, points: Array) -> Road:
        """A curve through points (n, 2) that lie close together, from station zero at the first."""
        stations = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
        return cls(0.0, float(stations[-1]), CubicSpline(stations, points))

    def heading(self, stations: ArrayLike) -> Array:
        tangent = self._spline(stations, 1)
        return np.asarray(np.arctan2(tangent[..., 1], tangent[..., 0]))

    def points(self, stations: ArrayLike, offsets: ArrayLike) -> Array:
        """World positions (..., 2)."""
        tangent = self._spline(stations, 1)
        tangent /= np.linalg.norm(tangent, axis=-1, keepdims=True)
        left = np.stack([-tangent[..., 1], tangent[..., 0]], axis=-1)
        return np.asarray(self._spline(stations) + np.asarray(offsets)[..., None] * left)

    def velocities(self, stations: ArrayLike, offsets: ArrayLike, station_rates: ArrayLike) -> Array:
        """World velocities (..., 2): the exact time derivative of `points` where stations move at station_rates."""
        tangent, bend = self._spline(stations, 1), self._spline(stations, 2)
        length = np.linalg.norm(tangent, axis=-1)
        turning = (tangent[..., 0] * bend[..., 1] - tangent[..., 1] * bend[..., 0]) / length**2
        speeds = np.asarray(station_rates) * (1 - turning * np.asarray(offsets) / length)
        return np.asarray(speeds[..., None] * tangent)


def _directions(headings: Array) -> Array:
    return np.stack([np.cos(headings), np.sin(headings)], axis=-1)
