"""A drive through a seed's world as a sequence of image sets, by themselves or rendered ahead by other processes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, starmap
from multiprocessing import get_context

from bevformer_ros.simulation.observe import Observation, observe
from bevformer_ros.simulation.rig import BASE_FROM_LIDAR, surround_rig
from bevformer_ros.simulation.sensor import PERFECT, SensorConfig
from bevformer_ros.simulation.world import START_NS, World
from bevformer_ros.types import SECOND_NS
from bevformer_ros.worker_process import follow_parent, starting_workers

LEAD_NS = SECOND_NS // 2  # of the world before the first and after the last set: tf needs both sides of every image


@dataclass(frozen=True)
class Drive:
    """What to simulate."""

    seed: int = 0
    """Which world."""
    seconds: float = 10.0
    """Length of the drive."""
    rate: float = 10.0
    """Image sets a second."""
    size: tuple[int, int] = (800, 450)
    """Width and height of the images."""
    sensor: SensorConfig = PERFECT
    """How far the cameras are from perfect."""

    def __post_init__(self) -> None:
        for name in ("seconds", "rate"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a positive number")

    @property
    def reference_stamps(self) -> list[int]:
        """Stamps of the reference camera's images."""
        count = max(1, round(self.seconds * self.rate))
        return [START_NS + LEAD_NS + round(index * SECOND_NS / self.rate) for index in range(count)]

    @property
    def end_ns(self) -> int:
        """Stamp up to which the world is simulated."""
        return self.reference_stamps[-1] + LEAD_NS

    def world(self) -> World:
        return World.make(self.seed, (self.end_ns + LEAD_NS - START_NS) / SECOND_NS)


def observations(drives: Sequence[Drive], workers: int = 0) -> Iterator[Observation]:
    """All sets of the drives in their order, seen by the nuScenes rig, truth in the lidar frame.

    workers: processes that render a few sets ahead; with 0 each is rendered when it is asked for. Raises ValueError for
    fewer.
    """
    if workers < 0:
        raise ValueError(f"workers is {workers}, expected 0 or more")
    tasks = ((drive, stamp_ns) for drive in drives for stamp_ns in drive.reference_stamps)
    if workers == 0:
        yield from starmap(_observation, tasks)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), follow_parent) as pool:
        with starting_workers():
            waiting = deque(pool.submit(_observation, *task) for task in islice(tasks, 2 * workers))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(_observation, *task) for task in islice(tasks, 1))


def _observation(drive: Drive, stamp_ns: int) -> Observation:
    return observe(_world(drive), surround_rig(*drive.size), BASE_FROM_LIDAR, stamp_ns, drive.sensor)


@lru_cache(maxsize=1)
def _world(drive: Drive) -> World:
    return drive.world()
