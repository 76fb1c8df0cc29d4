"""The drives that a training configuration names."""

from __future__ import annotations

from pathlib import Path

from bevformer_ros.model.config import ModelConfig
from bevformer_ros.training.config import TrainingConfig
from bevformer_ros.training.labelled_frame import DriveDataset
from bevformer_ros.training.world_dataset import WorldDataset


def open_dataset(config: TrainingConfig, model: ModelConfig, cache: Path) -> DriveDataset:
    """Raises ValueError where the configuration names none, or two."""
    if (config.world is None) == (config.nuscenes is None):
        raise ValueError("the training configuration must name its data: either `world` or `nuscenes`")
    if config.nuscenes is not None:
        from bevformer_ros.datasets.nuscenes_tables import open_dataset as open_tables
        from bevformer_ros.training.nuscenes_dataset import NuscenesDataset

        tables = open_tables(Path(config.nuscenes.root).expanduser(), config.nuscenes.version)
        return NuscenesDataset(tables, config.nuscenes.split, model)
    assert config.world is not None
    return WorldDataset(config.world, model.temporal.interval_s, cache)
