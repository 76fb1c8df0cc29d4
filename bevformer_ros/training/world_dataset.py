"""Drives through the simulated world as training data; a drive is rendered once and kept in a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bevformer_ros import geometry, simulation, taxonomy
from bevformer_ros.simulation.observe import TRUTH_RANGE, Observation, observe
from bevformer_ros.simulation.rig import BASE_FROM_LIDAR, surround_rig
from bevformer_ros.simulation.seeds import require_training_seeds
from bevformer_ros.simulation.world import START_NS, World
from bevformer_ros.taxonomy import CLASSES
from bevformer_ros.training.config import WorldDataConfig
from bevformer_ros.training.drive_file import read_drive, write_drive
from bevformer_ros.training.labelled_frame import LabelledFrame
from bevformer_ros.types import SECOND_NS


class WorldDataset:
    """Implements DriveDataset. Several processes may share the folder: a drive is kept under the size of its images,
    its frames and the simulator's version, and one that is there already is taken as it is."""

    def __init__(self, config: WorldDataConfig, interval_s: float, cache_folder: Path) -> None:
        """Raises ValueError for seeds that are reserved for evaluation."""
        self._seeds = list(range(*config.seeds))
        if config.rare is not None:
            pool = range(*config.rare.seeds)
            require_training_seeds(pool)
            self._seeds += rarest(pool, config.rare.drives)
        require_training_seeds(self._seeds)
        self._config = config
        self._interval_s = interval_s
        kind = [f"{config.image_width}px", f"{config.frames}x{interval_s:g}s", *_effects(config), simulator_version()]
        self._folder = cache_folder / "_".join(kind)
        self._folder.mkdir(parents=True, exist_ok=True)

    @property
    def lengths(self) -> Sequence[int]:
        return [self._config.frames] * len(self._seeds)

    def frames(self, drive: int, first: int, count: int) -> list[LabelledFrame]:
        path = self._folder / f"{self._seeds[drive]}.npz"
        if not path.exists():
            write_drive(path, self._render(self._seeds[drive]))
        return read_drive(path, first, count)

    def _render(self, seed: int) -> list[LabelledFrame]:
        config = self._config
        world = World.make(seed, max(config.frames * self._interval_s, 1.0))
        rig = surround_rig(config.image_width, config.image_width * 9 // 16)
        stamps = (START_NS + round(index * self._interval_s * SECOND_NS) for index in range(config.frames))
        return [_labelled(observe(world, rig, BASE_FROM_LIDAR, stamp, config.sensor)) for stamp in stamps]


def _effects(config: WorldDataConfig) -> list[str]:
    return [f"{name}{value:g}" for name, value in asdict(config.sensor).items() if value]


@cache
def simulator_version() -> str:
    """Of the source that decides what a drive shows."""
    assert geometry.__file__ and taxonomy.__file__ and simulation.__file__
    sources = [Path(geometry.__file__), Path(taxonomy.__file__), *Path(simulation.__file__).parent.glob("*.py")]
    digest = hashlib.sha256()
    for source in sorted(sources):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


def rarest(seeds: Sequence[int], count: int) -> list[int]:
    """The seeds whose worlds hold most of what is rare, best first: every class counts as much as any other."""
    objects = np.array([_objects_around(seed) for seed in seeds], np.float64)  # (seeds, classes)
    shares = objects / np.maximum(objects.sum(axis=0), 1)
    order = np.argsort(-shares.sum(axis=1), kind="stable")
    return [seeds[index] for index in order[:count]]


def _objects_around(seed: int) -> NDArray[np.int64]:
    """Objects of each class within range of the car when the world begins, hidden ones too."""
    world = World.make(seed, 1.0)
    bev_from_world = geometry.invert(world.world_from_base(START_NS) @ BASE_FROM_LIDAR)
    boxes = world.objects_at(START_NS).transformed(bev_from_world)
    near = (np.abs(boxes.centers[:, :2]) <= TRUTH_RANGE).all(axis=1)
    return np.bincount(boxes.labels[near], minlength=len(CLASSES))


def _labelled(observation: Observation) -> LabelledFrame:
    known = np.ones(len(observation.truth), np.bool_)
    return LabelledFrame(observation.frame, observation.truth, known, observation.visible)
