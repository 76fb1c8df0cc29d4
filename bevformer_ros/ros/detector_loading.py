"""The network that the settings name, on the backend and device that they name, for the cameras of a rig.

The libraries of a backend are imported when it is wanted: the other's may be missing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bevformer_ros.config import RigConfig
from bevformer_ros.inference.exported_model import ExportedModel
from bevformer_ros.inference.temporal_detector import AnyDetector
from bevformer_ros.resources import model_file
from bevformer_ros.ros.node.settings import DEFAULT_SCORE_THRESHOLD, Settings
from bevformer_ros.taxonomy import one_per_class
from bevformer_ros.types import Detections3D

# What the backend onnxruntime leaves to choose; the first of each is what the setting is by default.
_WITH_ONNXRUNTIME = {"device": ("auto", "cpu"), "precision": ("auto", "float32"), "weights": ("",)}


def detector_for(settings: Settings, rig: RigConfig) -> AnyDetector:
    """Raises ValueError as require_loadable does, for files that do not fit, and for a model that lacks a camera which
    the rig names of it."""
    require_loadable(settings)
    if settings.backend == "onnxruntime":
        from bevformer_ros.inference.onnx_detector import load_onnx_detector

        return load_onnx_detector(settings.model, settings.history(), rig.model_cameras)
    from bevformer_ros.inference.pipeline import load_detector

    return load_detector(
        model_file(settings.model),
        Path(settings.weights) if settings.weights else None,
        settings.device,
        settings.precision,
        settings.history(),
        model_cameras=rig.model_cameras,
    )


def require_loadable(settings: Settings) -> None:
    """Import the backend, and look for the network and its device. Raises ValueError for what is missing or beyond the
    backend."""
    if settings.backend == "onnxruntime":
        for name, possible in _WITH_ONNXRUNTIME.items():
            if (value := getattr(settings, name)) not in possible:
                raise ValueError(
                    f"{name} is {value!r}, but the backend onnxruntime runs what was exported, on the CPU in float32; "
                    f"leave it {possible[0] or 'empty'}, or set backend to torch"
                )
        import bevformer_ros.inference.onnx_detector  # noqa: F401

        ExportedModel.read(Path(settings.model))
    else:
        try:
            import torch  # noqa: F401
        except ImportError as error:
            raise ValueError(
                "the backend torch needs the Python module torch: pip install torch, or export the network where torch "
                "is, with `bevformer-ros export`, and set backend to onnxruntime and model to the folder"
            ) from error
        model_file(settings.model)
        device_of(settings)


def device_of(settings: Settings) -> str:
    """Where the network runs. Raises ValueError for a device that is not there."""
    if settings.backend == "onnxruntime":
        return "cpu"
    from bevformer_ros.inference.precision import resolve_device

    return resolve_device(settings.device)


def precision_of(settings: Settings) -> str:
    """In which arithmetic."""
    if settings.backend == "onnxruntime":
        return "float32"
    from bevformer_ros.inference.precision import resolve_precision

    return resolve_precision(settings.precision, device_of(settings))


def network_files(settings: Settings) -> list[Path]:
    """What the network is read from."""
    if settings.backend == "onnxruntime":
        return sorted(Path(settings.model).glob("*"))
    return [model_file(settings.model), *([Path(settings.weights)] if settings.weights else [])]


def score_thresholds(settings: Settings, detector: AnyDetector) -> NDArray[np.float64]:
    """(classes,) the user's, or what the weights recommend, or the default."""
    wanted = np.array(one_per_class(settings.score_threshold))
    recommended = one_per_class(detector.recommended_score_thresholds or DEFAULT_SCORE_THRESHOLD)
    return np.where(wanted >= 0, wanted, recommended)


def worth_showing(boxes: Detections3D, thresholds: NDArray[np.float64]) -> Detections3D:
    """Those that reach the threshold of their class. thresholds: (classes,)."""
    return boxes.select(boxes.scores >= thresholds[boxes.labels])


def jpeg_device_of(settings: Settings) -> str:
    """The GPU of the network, or any where that has none."""
    device = device_of(settings)
    return settings.jpeg_decoder if device == "cpu" or settings.jpeg_decoder == "cpu" else device
