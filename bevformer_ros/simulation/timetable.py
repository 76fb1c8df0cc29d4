"""When things move: speeds that change linearly between knots, so that distances are exact integrals of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Knots = Sequence[
    tuple[float, float]
]  # (seconds, m/s), times ascending; constant speed before the first, after the last
Windows = tuple[tuple[float, float], ...]  # (from, to) in seconds

REST: Knots = ((0.0, 0.0),)

_FOREVER = 1e5
_STEP = 0.5
_BRAKING, _PULLING, _EASING = 2.5, 1.6, 1.8  # m/s^2


@dataclass(frozen=True)
class Timetables:
    """m timetables of K knots: times (m, K) s, speeds (m, K) m/s, distances (m, K) m from where each is at time 0."""

    times: Array
    speeds: Array
    distances: Array

    @classmethod
    def of(cls, tables: Sequence[Knots]) -> Timetables:
        count = max(len(knots) for knots in tables)
        padded = [
            [
                (-_FOREVER, knots[0][1]),
                *knots,
                *((_FOREVER + index, knots[-1][1]) for index in range(count + 1 - len(knots))),
            ]
            for knots in tables
        ]
        times, speeds = np.moveaxis(np.array(padded, np.float64), -1, 0)
        steps = np.diff(times, axis=1) * (speeds[:, 1:] + speeds[:, :-1]) / 2
        distances = np.concatenate([np.zeros((len(tables), 1)), np.cumsum(steps, axis=1)], axis=1)
        start, _ = cls(times, speeds, distances).at(0.0)
        return cls(times, speeds, distances - start[:, None])

    def at(self, seconds: ArrayLike) -> tuple[Array, Array]:
        """Distances and speeds, both (..., m), at times (...)."""
        now = np.asarray(seconds, np.float64)[..., None]
        knot = np.minimum((self.times <= now[..., None]).sum(-1), self.times.shape[1] - 1) - 1
        table = np.arange(len(self.times))
        since = now - self.times[table, knot]
        rise = self.speeds[table, knot + 1] - self.speeds[table, knot]
        acceleration = rise / (self.times[table, knot + 1] - self.times[table, knot])
        speeds = self.speeds[table, knot] + acceleration * since
        return self.distances[table, knot] + (self.speeds[table, knot] + speeds) / 2 * since, speeds


def cruise(
    random: np.random.Generator,
    speed: float,
    until: float,
    stops: Windows = (),
    slow: tuple[float, float, float] | None = None,
) -> Knots:
    """Driving at a speed that sways a little, standing in the windows `stops`, and not faster than slow = (m/s, from,
    to) in that window."""
    times = np.arange(-3.25, until + 1.5, _STEP)  # no knot at zero
    speeds = speed * (1 + 0.12 * np.sin(2 * np.pi * (times / random.uniform(7, 13) + random.random())))
    for first, last in stops:
        braked = np.maximum(0.0, speed * 1.12 - _BRAKING * (times - first))
        cap = np.where(times < first, np.inf, np.where(times < last, braked, _PULLING * (times - last)))
        speeds = np.minimum(speeds, cap)
    if slow:
        limit, first, last = slow
        speeds = np.minimum(
            speeds, limit + _EASING * np.maximum.reduce([first - times, np.zeros_like(times), times - last])
        )
    return list(zip(times.tolist(), speeds.tolist(), strict=True))


def walk(start: float, distance: float, speed: float) -> Knots:
    """Standing, from `start` on walking so far at a speed, standing again."""
    stride = 0.4
    arrival = start + stride + distance / speed - stride
    return ((start, 0.0), (start + stride, speed), (arrival, speed), (arrival + stride, 0.0))
