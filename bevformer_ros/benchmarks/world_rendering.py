"""`bevformer-ros benchmark-world`: how many images a second the simulated world renders."""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from time import perf_counter

import cv2

from bevformer_ros.simulation.observe import observe
from bevformer_ros.simulation.rig import BASE_FROM_LIDAR, surround_rig
from bevformer_ros.simulation.world import START_NS, World
from bevformer_ros.types import SECOND_NS

_DRIVE_S = 20.0


@dataclass(frozen=True)
class WorldReport:
    """images_per_second: all processes together, with truth; world_s: making one world, in one process."""

    width: int
    height: int
    processes: int
    images: int
    images_per_second: float
    world_s: float


def measure(size: tuple[int, int], processes: int, frames: int) -> WorldReport:
    """Render `frames` sets of six images in each process, each from a world of its own."""
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        list(pool.map(_render, range(processes), [size] * processes, [1] * processes))  # to start and warm up
        started = perf_counter()
        making = list(pool.map(_render, range(processes), [size] * processes, [frames] * processes))
        wall_s = perf_counter() - started
    world_s = sum(making) / processes
    images = processes * frames * len(surround_rig())
    return WorldReport(*size, processes, images, images / (wall_s - world_s), world_s)


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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--width", type=int, default=480, help="of the images in pixels (default %(default)s)")
    parser.add_argument("--height", type=int, default=270, help="of the images in pixels (default %(default)s)")
    parser.add_argument("--processes", type=int, nargs="+", default=[1], help="at once, to compare (default 1)")
    parser.add_argument("--frames", type=int, default=20, help="sets of six for each process (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(arguments: argparse.Namespace) -> int:
    if min(arguments.processes) < 1 or arguments.frames < 1:
        raise ValueError("--processes and --frames must be at least 1")
    size = (arguments.width, arguments.height)
    reports = [measure(size, processes, arguments.frames) for processes in arguments.processes]
    if arguments.json:
        print(json.dumps([asdict(report) for report in reports], indent=2))
        return 0
    print("| size | processes | images | images/s | making a world s |")
    print("|---|---|---|---|---|")
    for report in reports:
        row = (f"{report.width}x{report.height}", report.processes, report.images)
        print("|", " | ".join([*map(str, row), f"{report.images_per_second:.1f}", f"{report.world_s:.2f}"]), "|")
    return 0
