"""Drives of the simulated world as training data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bevformer_ros.simulation.sensor import SensorConfig
from bevformer_ros.training.config import RareDrivesConfig, WorldDataConfig
from bevformer_ros.training.world_dataset import WorldDataset, _objects_around, rarest

CONFIG = WorldDataConfig((3, 5), frames=3, image_width=160)


def test_frames_of_a_drive(tmp_path: Path) -> None:
    drives = WorldDataset(CONFIG, 0.5, tmp_path)
    assert drives.lengths == [3, 3]
    frames = drives.frames(1, 1, 5)
    assert [labelled.frame.scene for labelled in frames] == ["world-4"] * 2
    assert frames[1].frame.stamp_ns - frames[0].frame.stamp_ns == 500_000_000
    for labelled in frames:
        assert len(labelled.truth) > 0
        assert labelled.velocity_known.all()
        assert labelled.visible.any(axis=1).all()
        assert all(camera.image.shape == (90, 160, 3) for camera in labelled.frame.cameras if camera)


def test_a_drive_is_rendered_once(tmp_path: Path) -> None:
    first = WorldDataset(CONFIG, 0.5, tmp_path).frames(0, 0, 1)[0]
    (file,) = tmp_path.rglob("*.npz")
    written = file.stat().st_mtime_ns
    again = WorldDataset(CONFIG, 0.5, tmp_path).frames(0, 0, 1)[0]
    assert file.stat().st_mtime_ns == written
    assert np.array_equal(first.frame.cameras[0].image, again.frame.cameras[0].image)
    assert np.array_equal(first.truth.corners(), again.truth.corners())
    WorldDataset(CONFIG, 0.25, tmp_path).frames(0, 0, 1)
    assert len(list(tmp_path.rglob("*.npz"))) == 2, "another spacing is another drive"
    noisy = WorldDataset(replace(CONFIG, sensor=SensorConfig(noise=9.0)), 0.5, tmp_path).frames(0, 0, 1)[0]
    assert len(list(tmp_path.rglob("*.npz"))) == 3, "so are other sensors"
    assert not np.array_equal(first.frame.cameras[0].image, noisy.frame.cameras[0].image)


def test_a_drive_of_another_simulator_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WorldDataset(CONFIG, 0.5, tmp_path).frames(0, 0, 1)
    monkeypatch.setattr("bevformer_ros.training.world_dataset.simulator_version", lambda: "another")
    WorldDataset(CONFIG, 0.5, tmp_path).frames(0, 0, 1)
    assert len(list(tmp_path.rglob("*.npz"))) == 2


def test_rare_drives_come_from_their_pool_and_hold_more_of_what_is_rare(tmp_path: Path) -> None:
    pool = range(100, 120)
    chosen = rarest(pool, 5)
    assert len(set(chosen)) == 5 and set(chosen) <= set(pool)
    objects = np.array([_objects_around(seed) for seed in pool])
    shares = dict(zip(pool, (objects / np.maximum(objects.sum(axis=0), 1)).sum(axis=1), strict=True))
    assert min(shares[seed] for seed in chosen) >= max(shares[seed] for seed in set(pool) - set(chosen))
    config = replace(CONFIG, rare=RareDrivesConfig((100, 120), 5))
    assert len(WorldDataset(config, 0.5, tmp_path).lengths) == 2 + 5


def test_reserved_seeds_are_refused(tmp_path: Path) -> None:
    for config in (replace(CONFIG, seeds=(9000, 9001)), replace(CONFIG, rare=RareDrivesConfig((9000, 9001), 1))):
        with pytest.raises(ValueError, match="reserved for evaluation"):
            WorldDataset(config, 0.5, tmp_path)
