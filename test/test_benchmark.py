"""The benchmark's report: which stages it has, and that it can be read by machines."""

from __future__ import annotations

import json

import pytest
import torch

from bevformer_ros.benchmark import noise_seen_by_the_simulated_rig
from bevformer_ros.cli import main
from bevformer_ros.config import load_yaml
from bevformer_ros.model.bev_encoder import pillar_points, project_pillars
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.share import config_file


def test_json_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "--model", "tiny_two_stage", "--repeats", "1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report["stages_ms"]) == [
        "backbone",
        "neck",
        "perspective head",
        "BEV encoder",
        "temporal fusion",
        "decoder",
        "boxes",
    ]
    assert report["model"] == "tiny_two_stage"
    assert report["peak_memory_mb"] > 0
    assert report["error"] == {}


def test_table_of_a_reduced_precision_tells_its_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "--model", "tiny", "--repeats", "1", "--precision", "bfloat16"]) == 0
    printed = capsys.readouterr().out
    for line in ("BEV encoder", "peak memory", "largest error against float32", "box codes"):
        assert line in printed


def test_no_repeats(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "--model", "tiny", "--repeats", "0"]) == 1
    assert "--repeats must be at least 1, got 0" in capsys.readouterr().err


def test_the_simulated_rig_sees_about_what_a_nuscenes_car_sees() -> None:
    """The golden cases, on the real rig, have 17 to 18 % of the pillar points visible."""
    config = load_yaml(ModelConfig, config_file("models", "tiny"))
    inputs = noise_seen_by_the_simulated_rig(config, torch.device("cpu"))
    width, height = config.image.padded_size
    points = pillar_points(config.bev, config.encoder.pillar_points, torch.device("cpu"))
    visible = project_pillars(points, inputs.image_from_bev, (height, width), None).visible
    assert 0.15 < visible.float().mean() < 0.21
