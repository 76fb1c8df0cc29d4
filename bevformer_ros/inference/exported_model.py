"""What lies beside the files of an exported network: all that is known of it but for its weights."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from bevformer_ros.config import load_yaml
from bevformer_ros.error_model import ErrorModel
from bevformer_ros.model.config import ModelConfig

MODEL_FILE = "model.json"


@dataclass(frozen=True)
class ExportedModel:
    """config: its cameras are those that the files were written for, in their order. The others as a Detector has
    them."""

    config: ModelConfig
    trained: bool
    score_thresholds: tuple[float, ...] | None
    error_model: ErrorModel | None

    @classmethod
    def read(cls, folder: Path) -> ExportedModel:
        """Raises ValueError where the folder holds no exported network."""
        file = folder / MODEL_FILE
        if not file.is_file():
            raise ValueError(
                f"{folder} holds no {MODEL_FILE}, expected a folder that `bevformer-ros export --format onnx` wrote"
            )
        return load_yaml(cls, file)  # JSON is YAML

    def write(self, folder: Path) -> Path:
        file = folder / MODEL_FILE
        file.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        return file
