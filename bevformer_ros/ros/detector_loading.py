"""The network that the settings name, on the device that they name, for the cameras of a rig."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bevformer_ros.config import RigConfig
from bevformer_ros.inference.pipeline import Detector, load_detector
from bevformer_ros.inference.precision import resolve_device
from bevformer_ros.resources import model_file
from bevformer_ros.ros.node.settings import DEFAULT_SCORE_THRESHOLD, Settings
from bevformer_ros.taxonomy import one_per_class
from bevformer_ros.types import Detections3D


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


def score_thresholds(settings: Settings, detector: Detector) -> NDArray[np.float64]:
    """(classes,) the user's, or what the weights recommend, or the default."""
    wanted = np.array(one_per_class(settings.score_threshold))
    recommended = one_per_class(detector.recommended_score_thresholds or DEFAULT_SCORE_THRESHOLD)
    return np.where(wanted >= 0, wanted, recommended)


def worth_showing(boxes: Detections3D, thresholds: NDArray[np.float64]) -> Detections3D:
    """Those that reach the threshold of their class. thresholds: (classes,)."""
    return boxes.select(boxes.scores >= thresholds[boxes.labels])


def jpeg_device_of(settings: Settings) -> str:
    """The GPU of the network, or any where that has none."""
    device = resolve_device(settings.device)
    return settings.jpeg_decoder if device == "cpu" or settings.jpeg_decoder == "cpu" else device
