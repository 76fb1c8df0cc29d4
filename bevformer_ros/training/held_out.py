"""How good weights are while they are still being learned, on worlds that they have never seen."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bevformer_ros.evaluation.simulated_world import KEYFRAME_RATE, evaluate_world
from bevformer_ros.inference.pipeline import Detector
from bevformer_ros.model.checkpoint import load_weights
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.model.network import build_network
from bevformer_ros.simulation.drive import Drive
from bevformer_ros.training.config import HeldOutConfig


def held_out_map(
    model: ModelConfig, weights: Mapping[str, Tensor], config: HeldOutConfig, decoder: bool, device: torch.device
) -> float:
    """mAP of the decoder's boxes, or of the perspective head's; draws nothing from the run's random numbers."""
    with torch.random.fork_rng(devices=[]):
        network = build_network(model)
    load_weights(network, weights)
    drives = [Drive(seed, config.seconds, KEYFRAME_RATE) for seed in range(*config.seeds)]
    return evaluate_world(Detector(network, True, str(device)), drives, proposals=not decoder).mean_ap
