"""Some steps of every shipped training configuration, on its own data in small."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from support import REPOSITORY

from bevformer_ros.config import load_yaml
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.resources import config_file
from bevformer_ros.training.config import TrainingConfig
from bevformer_ros.training.datasets import open_dataset
from bevformer_ros.training.trainer import Trainer

pytestmark = pytest.mark.own_process

SHIPPED = sorted((REPOSITORY / "config" / "training").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_steps_have_finite_losses_and_gradients(path, tmp_path):
    shipped = load_yaml(TrainingConfig, path)
    assert shipped.world is not None
    rare = None if shipped.world.rare is None else replace(shipped.world.rare, seeds=(1000, 1004), drives=1)
    world = replace(shipped.world, seeds=(0, 1), rare=rare, frames=2)
    config = replace(shipped, world=world, rounds=1, clips=1, clip_frames=2)
    model = load_yaml(ModelConfig, config_file("models", config.model))
    trainer = Trainer(config, model, open_dataset(config, model, tmp_path))
    (clips,) = trainer._loader(0)
    metrics = trainer.train_round(clips)
    taught = {"bev_classes": config.bev, "perspective_classes": config.perspective}
    assert {name for name in taught if name in metrics} == {name for name, loss in taught.items() if loss}
    assert all(math.isfinite(value) for value in metrics.values())
    assert metrics["gradient_norm"] > 0
