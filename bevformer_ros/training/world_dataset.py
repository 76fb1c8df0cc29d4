"""Drives through the simulated world as training data; a drive is rendered once and kept in a folder."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bevformer_ros.simulation.observe import Observation, observe
from bevformer_ros.simulation.rig import BASE_FROM_LIDAR, surround_rig
from bevformer_ros.simulation.seeds import require_training_seeds
from bevformer_ros.simulation.world import START_NS, World
from bevformer_ros.training.config import WorldDataConfig
from bevformer_ros.training.labelled_frame import LabelledFrame
from bevformer_ros.types import SECOND_NS


class WorldDataset:
    """Implements DriveDataset. Several processes may share the folder, which is for one version of the world: what was
    rendered by another is taken as it is."""

    def __init__(self, config: WorldDataConfig, interval_s: float, cache: Path) -> None:
        """Raises ValueError for seeds that are reserved for evaluation."""
        require_training_seeds(range(*config.seeds))
        self._config = config
        self._interval_s = interval_s
        self._cache = cache / f"{config.image_width}px_{config.frames}x{interval_s:g}s"
        self._cache.mkdir(parents=True, exist_ok=True)

    @property
    def lengths(self) -> Sequence[int]:
        return [self._config.frames] * (self._config.seeds[1] - self._config.seeds[0])

    def frames(self, drive: int, first: int, count: int) -> list[LabelledFrame]:
        seed = self._config.seeds[0] + drive
        path = self._cache / f"{seed}.pickle"
        if not path.exists():
            # Under another name at first, so that nobody ever reads half a drive.
            unfinished = path.with_suffix(f".{os.getpid()}")
            unfinished.write_bytes(pickle.dumps(self._render(seed), pickle.HIGHEST_PROTOCOL))
            unfinished.replace(path)
        drive_frames: list[LabelledFrame] = pickle.loads(path.read_bytes())
        return drive_frames[first : first + count]

    def _render(self, seed: int) -> list[LabelledFrame]:
        config = self._config
        world = World.make(seed, max(config.frames * self._interval_s, 1.0))
        rig = surround_rig(config.image_width, config.image_width * 9 // 16)
        stamps = (START_NS + round(index * self._interval_s * SECOND_NS) for index in range(config.frames))
        return [_labelled(observe(world, rig, BASE_FROM_LIDAR, stamp)) for stamp in stamps]


def _labelled(observation: Observation) -> LabelledFrame:
    known = np.ones(len(observation.truth), np.bool_)
    return LabelledFrame(observation.frame, observation.truth, known, observation.visible)
