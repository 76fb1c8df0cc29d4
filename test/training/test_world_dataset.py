"""Drives of the simulated world as training data."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bevformer_ros.training.config import WorldDataConfig
from bevformer_ros.training.world_dataset import WorldDataset

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
    (file,) = tmp_path.rglob("*.pickle")
    written = file.stat().st_mtime_ns
    again = WorldDataset(CONFIG, 0.5, tmp_path).frames(0, 0, 1)[0]
    assert file.stat().st_mtime_ns == written
    assert np.array_equal(first.frame.cameras[0].image, again.frame.cameras[0].image)
    WorldDataset(CONFIG, 0.25, tmp_path).frames(0, 0, 1)
    assert len(list(tmp_path.rglob("*.pickle"))) == 2, "another spacing is another drive"
