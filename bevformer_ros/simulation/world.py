"""The world: streets, what stands and moves on them, and the ego car's drive. All of it follows from one seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bevformer_ros import geometry
from bevformer_ros.simulation.crowd import Objects, attributes_of, follow
from bevformer_ros.simulation.ground import Ground
from bevformer_ros.simulation.road import Road
from bevformer_ros.simulation.scenery import Scenery, build_scenery
from bevformer_ros.simulation.timetable import Timetables
from bevformer_ros.simulation.town import EgoDrive, Town
from bevformer_ros.types import SECOND_NS, Detections3D

Array = NDArray[np.float64]

START_NS = 1_767_225_600_000_000_000  # the stamp of time zero, 2026-01-01 UTC


@dataclass(frozen=True, eq=False)
class World:
    """Flat ground at z = 0; stamps are integer nanoseconds, valid from START_NS to START_NS + duration.

    roads: the paths of the ego and of the objects. light_from: (3,) unit vector to the sun.
    """

    seed: int
    duration_s: float
    roads: tuple[Road, ...]
    ego: EgoDrive
    objects: Objects
    timetables: Timetables
    scenery: Scenery
    ground: Ground
    light_from: Array

    @classmethod
    def make(cls, seed: int, duration_s: float = 20.0) -> World:
        """The world of a seed. Raises ValueError for a duration that is not positive."""
        if duration_s <= 0:
            raise ValueError(f"duration_s is {duration_s}, expected a positive number of seconds")
        random = np.random.default_rng(seed)
        town = Town.build(random, duration_s)
        scenery = build_scenery(random, town.streets)
        azimuth = random.uniform(0, 2 * np.pi)
        light_from = np.array([0.75 * np.cos(azimuth), 0.75 * np.sin(azimuth), 1.0])
        light_from /= np.linalg.norm(light_from)
        ground = Ground.of(town.streets)
        return cls(seed, duration_s, town.roads, town.ego, town.objects, town.timetables, scenery, ground, light_from)

    def world_from_base(self, stamp_ns: int) -> Array:
        """(4, 4) pose of the ego's rear axle on the ground: x forward, y left, z up."""
        road, station = self.roads[self.ego.path], self.ego.station(seconds_of(stamp_ns))
        x, y = road.points(station, self.ego.lane)
        return geometry.transform_from_rpy((x, y, 0.0), (0.0, 0.0, float(road.heading(station))))

    def ego_velocity(self, stamp_ns: int) -> Array:
        """(2,) m/s of the rear axle in the world."""
        seconds, road = seconds_of(stamp_ns), self.roads[self.ego.path]
        return road.velocities(self.ego.station(seconds), self.ego.lane, self.ego.station_rate(seconds))

    def objects_at(self, stamp_ns: int) -> Detections3D:
        """Every object, in the order of `objects`, as boxes of score 1 in the world frame."""
        objects, count = self.objects, len(self.objects.labels)
        tracks = follow(objects, self.roads, self.timetables, np.array([seconds_of(stamp_ns)]))
        return Detections3D(
            stamp_ns,
            centers=np.column_stack([tracks.positions[0], objects.sizes[:, 2] / 2]),
            sizes=objects.sizes,
            yaws=tracks.yaws[0],
            velocities=tracks.velocities[0],
            scores=np.ones(count),
            labels=objects.labels,
            attributes=attributes_of(objects, tracks.rates[0]),
            from_proposal=np.zeros(count, np.bool_),
        )


def seconds_of(stamp_ns: int) -> float:
    """World time of a stamp."""
    return (stamp_ns - START_NS) / SECOND_NS
