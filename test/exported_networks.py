"""Networks to export, and surroundings in which only their exports can run."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from bevformer_ros.config import load_yaml
from bevformer_ros.inference.pipeline import Detector
from bevformer_ros.model.checkpoint import load_weights, read_checkpoint
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.model.network import build_network


def detector_of(file: Path, mode: Literal["warp", "reencode"] = "warp") -> Detector:
    """With random weights, or with those that the file holds; its proposals let noise through."""
    checkpoint = read_checkpoint(file) if file.suffix == ".safetensors" else None
    config = load_yaml(ModelConfig, file) if checkpoint is None else checkpoint.config
    assert config is not None
    config = replace(config, temporal=replace(config.temporal, mode=mode))
    if config.proposals is not None:
        config = replace(config, proposals=replace(config.proposals, score_threshold=0.0, minimum_score=0.0, count=10))
    torch.manual_seed(0)
    network = build_network(config)
    if checkpoint is not None:
        load_weights(network, checkpoint.weights)
    return Detector(network, trained=checkpoint is not None)


def without(module: str, folder: Path) -> dict[str, str]:
    """Environment variables for a Python that does not find the module, wherever it is installed."""
    text = f"raise ModuleNotFoundError('{module} is blocked', name='{module}')\n"
    (folder / f"{module}.py").write_text(text, encoding="utf-8")
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))}
