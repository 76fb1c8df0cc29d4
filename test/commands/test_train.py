"""The command, from its YAML to weights that the detector loads."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import REPOSITORY

from bevformer_ros.commands.cli import main
from bevformer_ros.config import load_yaml
from bevformer_ros.inference.pipeline import load_detector
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.training.config import NuscenesDataConfig, TrainingConfig, WorldDataConfig
from bevformer_ros.training.datasets import open_dataset

pytestmark = pytest.mark.own_process

SMALLEST = REPOSITORY / "test" / "smallest_two_stage.yaml"


def configuration(directory: Path, seeds: str = "[0, 2]") -> Path:
    path = directory / "training.yaml"
    path.write_text(
        f"model: {SMALLEST}\nrounds: 1\nclips: 1\nclip_frames: 2\n"
        f"world: {{seeds: {seeds}, frames: 2, image_width: 160}}\n"
        "perspective: {size_ranges: [[-1, 48], [48, 96], [96, .inf]]}\noptimiser: {warm_up: 0}\n",
        encoding="utf-8",
    )
    return path


def test_train_in_the_world(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["train", "--config", str(configuration(tmp_path)), "--output", str(out), "--workers", "0"]) == 0
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert str(out / "weights.safetensors") in capsys.readouterr().out
    detector = load_detector(out / "weights.safetensors")
    assert detector.trained
    assert detector.config == load_yaml(ModelConfig, SMALLEST)


def test_reserved_seeds_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--config", str(configuration(tmp_path, "[8999, 9001]")), "--output", str(tmp_path / "out")]
    assert main(words) == 1
    assert "9000 is reserved for evaluation" in capsys.readouterr().err


@pytest.mark.parametrize(
    "data", [{}, {"world": WorldDataConfig((0, 1)), "nuscenes": NuscenesDataConfig("somewhere")}], ids=["none", "two"]
)
def test_exactly_one_data_set_is_wanted(data: dict, tmp_path: Path) -> None:
    config = TrainingConfig("demo", **data)
    with pytest.raises(ValueError, match="either `world` or `nuscenes`"):
        open_dataset(config, load_yaml(ModelConfig, SMALLEST), tmp_path)
