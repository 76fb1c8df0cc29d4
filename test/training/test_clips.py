"""Which clips a run sees."""

from __future__ import annotations

import numpy as np
import pytest
from drives import NAMES, Drives

from bevformer_ros.training.clips import Clips
from bevformer_ros.training.config import AugmentationConfig, TrainingConfig


def clips(lengths: list[int], seed: int = 0, **augmentation) -> Clips:
    config = TrainingConfig(
        "test", rounds=4, clips=3, clip_frames=3, seed=seed, augmentation=AugmentationConfig(**augmentation)
    )
    return Clips(Drives(lengths), config, NAMES)


def names_and_stamps(clip) -> list[tuple[str, int]]:
    return [(labelled.frame.scene, labelled.frame.stamp_ns) for labelled in clip]


def test_no_drives_is_refused() -> None:
    with pytest.raises(ValueError, match="no drives"):
        clips([])


def test_every_drive_comes_once_before_any_comes_twice() -> None:
    data = clips([3, 3, 3, 3])
    scenes = [data[index][0].frame.scene for index in range(len(data))]
    assert len(data) == 12
    for epoch in range(3):
        assert sorted(scenes[4 * epoch : 4 * epoch + 4]) == ["drive-0", "drive-1", "drive-2", "drive-3"]
    assert scenes[:4] != scenes[4:8] or scenes[4:8] != scenes[8:]


def test_clips_are_successive_and_start_anywhere() -> None:
    data = clips([8])
    firsts = set()
    for index in range(12):
        stamps = [stamp for _, stamp in names_and_stamps(data[index])]
        assert np.diff(stamps).tolist() == [500_000_000] * 2
        firsts.add(stamps[0])
    assert len(firsts) > 2


def test_a_short_drive_is_taken_whole() -> None:
    assert len(clips([2])[0]) == 2


def test_the_seed_decides_all() -> None:
    options = {"turn": 0.5, "mirror": 0.5, "gain": (0.5, 1.5)}
    first, again, other = (clips([8, 8, 8], seed, **options)[7] for seed in (1, 1, 2))
    assert names_and_stamps(first) == names_and_stamps(again)
    for one, two in zip(first, again, strict=True):
        assert np.array_equal(one.truth.centers, two.truth.centers)
        assert np.array_equal(one.frame.cameras[0].image, two.frame.cameras[0].image)
    assert not np.array_equal(first[0].truth.centers, other[0].truth.centers)
