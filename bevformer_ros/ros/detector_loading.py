"""The network that the settings name, on the device that they name, for the cameras of a rig."""

from __future__ import annotations

from pathlib import Path

from bevformer_ros.config import RigConfig
from bevformer_ros.inference.pipeline import Detector, load_detector
from bevformer_ros.inference.precision import resolve_device
from bevformer_ros.resources import model_file
from bevformer_ros.ros.node.settings import DEFAULT_SCORE_THRESHOLD, Settings


def detector_for(settings: Settings, rig: RigConfig) -> Detector:
    """Raises ValueError for files that do not fit, and for a model that lacks a camera which the rig names of it."""
    return load_detector(
        model_file(settings.model),
        Path(settings.weights) if settings.weights else None,
        settings.device,
        settings.precision,
        settings.history(),
        model_cameras=rig.model_cameras,
    )


def score_threshold(settings: Settings, detector: Detector) -> float:
    """The user's, or what the weights recommend, or the default."""
    if settings.score_threshold >= 0:
        return settings.score_threshold
    recommended = detector.recommended_score_threshold
    return DEFAULT_SCORE_THRESHOLD if recommended is None else recommended


def jpeg_device_of(settings: Settings) -> str:
    """The GPU of the network, or any where that has none."""
    device = resolve_device(settings.device)
    return settings.jpeg_decoder if device == "cpu" or settings.jpeg_decoder == "cpu" else device
