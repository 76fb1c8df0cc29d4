"""Which clips a training run sees, in which order and how augmented: all a function of the seed."""

from __future__ import annotations

import numpy as np
from torch.utils.data import Dataset

from bevformer_ros.training.augmentation import ClipAugmentation
from bevformer_ros.training.config import TrainingConfig
from bevformer_ros.training.labelled_frame import DriveDataset, LabelledFrame


class Clips(Dataset[list[LabelledFrame]]):
    """Item i is clip i of the run: every drive comes once before any comes twice, each time in another order.

    A drive that is shorter than a clip is taken whole.
    """

    def __init__(self, drives: DriveDataset, config: TrainingConfig, camera_names: tuple[str, ...]) -> None:
        self._drives, self._config, self._camera_names = drives, config, camera_names
        self._lengths = drives.lengths
        if not self._lengths:
            raise ValueError("the data set has no drives; is the split or the range of seeds empty?")

    def __len__(self) -> int:
        return self._config.rounds * self._config.clips_per_round

    def __getitem__(self, index: int) -> list[LabelledFrame]:
        config, epoch, place = self._config, *divmod(index, len(self._lengths))
        order = np.random.default_rng((config.seed, epoch)).permutation(len(self._lengths))
        drive = int(order[place])
        random = np.random.default_rng((config.seed, index, 1))
        first = int(random.integers(max(self._lengths[drive] - config.clip_frames, 0) + 1))
        augment = ClipAugmentation.draw(config.augmentation, len(self._camera_names), random)
        frames = self._drives.frames(drive, first, config.clip_frames)
        return [augment(frame, self._camera_names) for frame in frames]
