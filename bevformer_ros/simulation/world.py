"""The world: a road, what stands and moves on it, and the ego car's drive. All of it follows from one seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bevformer_ros import geometry
from bevformer_ros.simulation import population
from bevformer_ros.simulation.ground import Ground
from bevformer_ros.simulation.population import Objects, Scenery
from bevformer_ros.simulation.road import Road
from bevformer_ros.types import Detections3D

Array = NDArray[np.float64]

START_NS = 1_767_225_600_000_000_000  # the stamp of time zero, 2026-01-01 UTC
_VIEW_DISTANCE = 150.0


@dataclass(frozen=True)
class EgoDrive:
    """The rear axle follows a lane; its station is speed * t plus a slow surge, so that it also accelerates."""

    lane: float
    speed: float
    surge_length: float
    surge_rate: float

    def station(self, seconds: float) -> float:
        return self.speed * seconds + self.surge_length * np.sin(self.surge_rate * seconds)

    def station_rate(self, seconds: float) -> float:
        return self.speed + self.surge_length * self.surge_rate * np.cos(self.surge_rate * seconds)


@dataclass(frozen=True, eq=False)
class World:
    """Flat ground at z = 0; stamps are integer nanoseconds, valid from START_NS to START_NS + duration."""

    seed: int
    duration_s: float
    road: Road
    ego: EgoDrive
    objects: Objects
    scenery: Scenery
    ground: Ground
    light_from: Array

    @classmethod
    def make(cls, seed: int, duration_s: float = 20.0) -> World:
        """The world of a seed. Raises ValueError for a duration that is not positive."""
        if duration_s <= 0:
            raise ValueError(f"duration_s is {duration_s}, expected a positive number of seconds")
        random = np.random.default_rng(seed)
        ego = EgoDrive(
            lane=float(random.choice([-1.75, -5.25])),
            speed=float(random.uniform(7.0, 10.0)),
            surge_length=float(random.uniform(1.0, 2.0)),
            surge_rate=float(random.uniform(0.4, 0.7)),
        )
        distance = ego.speed * duration_s
        first, last = -_VIEW_DISTANCE, distance + _VIEW_DISTANCE
        margin = population.FASTEST * duration_s + 50.0
        road = Road.make(random, first - margin, last + margin)
        objects = population.populate(random, ego.lane, ego.speed, duration_s, first, last)
        scenery = population.build_scenery(random, road, first, last)
        azimuth = random.uniform(0, 2 * np.pi)
        light_from = np.array([0.75 * np.cos(azimuth), 0.75 * np.sin(azimuth), 1.0])
        light_from /= np.linalg.norm(light_from)
        ground = Ground.of(road, max(first - _VIEW_DISTANCE, road.start), min(last + _VIEW_DISTANCE, road.end))
        return cls(seed, duration_s, road, ego, objects, scenery, ground, light_from)

    def world_from_base(self, stamp_ns: int) -> Array:
        """(4, 4) pose of the ego's rear axle on the ground: x forward, y left, z up."""
        station = self.ego.station(seconds_of(stamp_ns))
        x, y = self.road.points(station, self.ego.lane)
        return geometry.transform_from_rpy((x, y, 0.0), (0.0, 0.0, float(self.road.heading(station))))

    def ego_velocity(self, stamp_ns: int) -> Array:
        """(2,) m/s of the rear axle in the world."""
        seconds = seconds_of(stamp_ns)
        return self.road.velocities(self.ego.station(seconds), self.ego.lane, self.ego.station_rate(seconds))

    def objects_at(self, stamp_ns: int) -> Detections3D:
        """Every object, in the order of `objects`, as boxes of score 1 in the world frame."""
        seconds, objects = seconds_of(stamp_ns), self.objects
        stations = objects.stations + objects.station_rates * seconds
        count = len(stations)
        return Detections3D(
            stamp_ns,
            centers=np.column_stack([self.road.points(stations, objects.offsets), objects.sizes[:, 2] / 2]),
            sizes=objects.sizes,
            yaws=geometry.wrap_angle(self.road.heading(stations) + objects.headings),
            velocities=self.road.velocities(stations, objects.offsets, objects.station_rates),
            scores=np.ones(count),
            labels=objects.labels,
            attributes=objects.attributes,
            from_proposal=np.zeros(count, np.bool_),
        )


def seconds_of(stamp_ns: int) -> float:
    """World time of a stamp."""
    return (stamp_ns - START_NS) * 1e-9
