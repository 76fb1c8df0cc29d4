"""The network that the settings name, on the device that they name, for the cameras of a rig."""

from __future__ import annotations

from pathlib import Path

import torch

from bevformer_ros.config import RigConfig
from bevformer_ros.inference.history import HistoryConfig
from bevformer_ros.inference.pipeline import Detector, load_detector
from bevformer_ros.resources import model_file
from bevformer_ros.ros.node.settings import Settings


def load_network(settings: Settings, rig: RigConfig) -> Detector:
    """Raises ValueError for files that do not fit, and for a model of other cameras than the rig's."""
    detector = load_detector(
        model_file(settings.model),
        Path(settings.weights) if settings.weights else None,
        device_of(settings),
        settings.precision,
        HistoryConfig(minimum_spacing_s=settings.history_spacing_s),
    )
    config, names = detector.config, tuple(camera.name for camera in rig.cameras)
    if names != config.cameras:
        raise ValueError(
            f"the rig has the cameras {', '.join(names)}, the model {config.name} {', '.join(config.cameras)}; "
            "both must name the same ones in the same order"
        )
    return detector


def device_of(settings: Settings) -> str:
    if settings.device != "auto":
        return settings.device
    return "cuda" if torch.cuda.is_available() else "cpu"
