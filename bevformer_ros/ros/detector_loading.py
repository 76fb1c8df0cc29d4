"""The network that the settings name, on the device that they name, for the cameras of a rig."""

from __future__ import annotations

from pathlib import Path

import torch

from bevformer_ros.config import RigConfig
from bevformer_ros.inference.pipeline import Detector, load_detector
from bevformer_ros.resources import model_file
from bevformer_ros.ros.node.settings import DEFAULT_SCORE_THRESHOLD, Settings


def detector_for(settings: Settings, rig: RigConfig) -> Detector:
    """Raises ValueError for files that do not fit, and for a model of other cameras than the rig's."""
    detector = load_detector(
        model_file(settings.model),
        Path(settings.weights) if settings.weights else None,
        device_of(settings),
        settings.precision,
        settings.history(),
    )
    config, names = detector.config, tuple(camera.name for camera in rig.cameras)
    if names != config.cameras:
        raise ValueError(
            f"the rig has the cameras {', '.join(names)}, the model {config.name} {', '.join(config.cameras)}; "
            "both must name the same ones in the same order"
        )
    return detector


def score_threshold(settings: Settings, detector: Detector) -> float:
    """The user's, or what the weights recommend, or the default."""
    if settings.score_threshold >= 0:
        return settings.score_threshold
    recommended = detector.recommended_score_threshold
    return DEFAULT_SCORE_THRESHOLD if recommended is None else recommended


def device_of(settings: Settings) -> str:
    """Raises ValueError for a GPU that is not there."""
    if settings.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if settings.device.startswith("cuda"):
        _require_gpu(settings.device)
    return settings.device


def jpeg_device_of(settings: Settings) -> str:
    """The GPU of the network, or any where that has none."""
    device = device_of(settings)
    return settings.jpeg_decoder if device == "cpu" or settings.jpeg_decoder == "cpu" else device


def _require_gpu(device: str) -> None:
    if not torch.cuda.is_available():
        raise ValueError(f"device is {device}, but torch can use no GPU ({_why_no_gpu()}); set device to cpu or auto")
    count, index = torch.cuda.device_count(), int(device.partition(":")[2] or 0)
    if index >= count:
        names = ", ".join(f"cuda:{each} {torch.cuda.get_device_name(each)}" for each in range(count))
        raise ValueError(f"device is {device}, but there is only {names}")


def _why_no_gpu() -> str:
    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    try:
        torch.cuda.init()
    except RuntimeError as error:  # a driver that is missing or too old says so
        return str(error).strip().splitlines()[0]
    return "no device found"
