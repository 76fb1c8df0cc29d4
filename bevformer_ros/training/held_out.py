"""How good weights are while they are still being learned, on worlds that they have never seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bevformer_ros import geometry
from bevformer_ros.drawing import Image, draw_surround
from bevformer_ros.evaluation.matching import HIT_DISTANCE, comparison, within_range
from bevformer_ros.evaluation.simulated_world import KEYFRAME_RATE, as_seen, evaluate_world
from bevformer_ros.inference.pipeline import Detector
from bevformer_ros.model.checkpoint import load_weights
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.model.network import build_network
from bevformer_ros.simulation.drive import Drive, observations
from bevformer_ros.simulation.rig import BASE_FROM_LIDAR
from bevformer_ros.training.config import HeldOutConfig
from bevformer_ros.types import Detections3D

_PICTURE_SECONDS = 2.0  # of the first drive: its last set is drawn, by then there is some history
_PICTURE_SCORE = 0.2  # boxes below it are left out of the picture
_VIEW_WIDTH = 400
_BEV_FROM_BASE = geometry.invert(BASE_FROM_LIDAR)


def held_out_detector(model: ModelConfig, weights: Mapping[str, Tensor], device: torch.device) -> Detector:
    """Draws nothing from the run's random numbers."""
    with torch.random.fork_rng(devices=[]):
        network = build_network(model)
    load_weights(network, weights)
    return Detector(network, True, str(device))


def held_out_map(detector: Detector, config: HeldOutConfig, decoder: bool) -> float:
    """mAP of the decoder's boxes, or the perspective head's, as far as the model sees to every side."""
    reach = detector.config.bev.range[3]  # what lies farther can only be missed
    return evaluate_world(detector, _drives(config, config.seconds), not decoder, reach=reach).mean_ap


def held_out_picture(detector: Detector, config: HeldOutConfig, decoder: bool) -> Image:
    """(H, W, 3) BGR: what is found in a set of the first drive, always the same one, with the truth."""
    seen = list(observations(_drives(config, min(config.seconds, _PICTURE_SECONDS))[:1]))
    frames = [as_seen(observation.frame, detector.config.cameras) for observation in seen]
    detector.reset()
    *_, found = detector.replay(iter(frames))
    boxes = found if decoder else found.proposals
    assert boxes is not None
    shown = _in_range(boxes.select(boxes.scores >= _PICTURE_SCORE))
    compared = comparison(shown, _in_range(seen[-1].truth), HIT_DISTANCE)
    title = f"world {config.seeds[0]}   score from {_PICTURE_SCORE:g}   {compared}"
    return draw_surround(frames[-1], shown, title, comparison=compared, view_width=_VIEW_WIDTH)


def _drives(config: HeldOutConfig, seconds: float) -> Sequence[Drive]:
    return [Drive(seed, seconds, KEYFRAME_RATE) for seed in range(*config.seeds)]


def _in_range(boxes: Detections3D) -> Detections3D:
    return within_range(boxes.transformed(BASE_FROM_LIDAR)).transformed(_BEV_FROM_BASE)
