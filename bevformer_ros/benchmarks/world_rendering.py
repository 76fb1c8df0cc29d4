"""How many images a second the simulated world renders."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from time import perf_counter

import cv2

from bevformer_ros.simulation.observe import observe
from bevformer_ros.simulation.rig import BASE_FROM_LIDAR, surround_rig
from bevformer_ros.simulation.world import START_NS, World
from bevformer_ros.types import SECOND_NS
from bevformer_ros.worker_process import follow_parent

_DRIVE_S = 20.0


@dataclass(frozen=True)
class WorldReport:
    """workers: processes. images_per_second: all of them together, with truth. world_s: making one world, in
    one process."""

    width: int
    height: int
    workers: int
    images: int
    images_per_second: float
    world_s: float


def measure(size: tuple[int, int], workers: int, frames: int) -> WorldReport:
    """Render `frames` sets of six images in each process, each from a world of its own. Raises ValueError for none."""
    if workers < 1 or frames < 1:
        raise ValueError(f"workers and frames must be at least 1, got {workers} and {frames}")
    with ProcessPoolExecutor(workers, get_context("spawn"), follow_parent) as pool:
        list(pool.map(_render, range(workers), [size] * workers, [1] * workers))  # to start and warm up
        started = perf_counter()
        making = list(pool.map(_render, range(workers), [size] * workers, [frames] * workers))
        wall_s = perf_counter() - started
    world_s = sum(making) / workers
    images = workers * frames * len(surround_rig())
    return WorldReport(*size, workers, images, images / (wall_s - world_s), world_s)


def _render(seed: int, size: tuple[int, int], frames: int) -> float:
    """Returns the seconds that making the world took."""
    cv2.setNumThreads(1)
    started = perf_counter()
    world = World.make(seed, _DRIVE_S)
    made = perf_counter()
    rig = surround_rig(*size)
    for frame in range(frames):
        observe(world, rig, BASE_FROM_LIDAR, START_NS + round(frame / frames * _DRIVE_S * SECOND_NS))
    return made - started
