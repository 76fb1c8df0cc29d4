"""`bevformer-ros convert` on a file as mmcv writes it (golden case 6)."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import golden_cases
import pytest
import torch
import yaml
from official_config import model_config
from support import REPOSITORY

from bevformer_ros.commands.cli import main
from bevformer_ros.config import load_yaml
from bevformer_ros.error_model import Deviations, ErrorModel, RingDeviations
from bevformer_ros.inference.pipeline import load_detector
from bevformer_ros.model.checkpoint import (
    NOT_IN_THE_NETWORK,
    load_weights,
    name_from_official,
    read_checkpoint,
    save_checkpoint,
)
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.model.network import build_network


@pytest.mark.parametrize("path", golden_cases.variants("case6_mmcv_checkpoint"))
def test_an_official_checkpoint_becomes_ours(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors, description = golden_cases.load(path)
    config = model_config(description["model_cfg"], tensors["inputs.img"])
    model, output = tmp_path / "model.yaml", tmp_path / "model.safetensors"
    model.write_text(yaml.safe_dump(json.loads(json.dumps(asdict(config)))), encoding="utf-8")
    official = path.with_name(description["checkpoint_file"])
    assert main(["convert", str(official), "-o", str(output), "--model", str(model)]) == 0
    printed = capsys.readouterr().out
    assert "left out, the network does not use it: pts_bbox_head.code_weights" in printed
    assert "backbone" in printed
    assert "wrote" in printed
    checkpoint = read_checkpoint(output)
    assert checkpoint.config == config
    for name, tensor in golden_cases.part(tensors, "weights.").items():
        if name not in NOT_IN_THE_NETWORK:
            assert torch.equal(checkpoint.weights[name_from_official(name)], tensor), name


@pytest.mark.parametrize("path", golden_cases.variants("case6_mmcv_checkpoint"))
def test_the_wrong_model_is_refused(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, description = golden_cases.load(path)
    official, output = path.with_name(description["checkpoint_file"]), tmp_path / "model.safetensors"
    assert main(["convert", str(official), "-o", str(output), "--model", "tiny"]) == 1
    assert "is it the right model configuration?" in capsys.readouterr().err
    assert not output.exists()


def small_weights() -> tuple[ModelConfig, dict[str, torch.Tensor]]:
    config = load_yaml(ModelConfig, REPOSITORY / "test" / "smallest_two_stage.yaml")
    return config, build_network(config).state_dict()


def test_our_own_weights_are_halved(tmp_path: Path) -> None:
    config, weights = small_weights()
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    save_checkpoint(whole, weights, config)
    model = str(REPOSITORY / "test" / "smallest_two_stage.yaml")
    assert main(["convert", str(whole), "-o", str(half), "--model", model, "--half"]) == 0
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    network = build_network(config)
    load_weights(network, read_checkpoint(half).weights)
    for name, tensor in network.state_dict().items():
        assert tensor.dtype == weights[name].dtype, name
        assert torch.allclose(tensor, weights[name], rtol=1e-3, atol=1e-6), name


def test_what_is_too_large_for_half_precision_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, weights = small_weights()
    weights["queries.embedding.weight"][0, 0] = 1e6
    path = tmp_path / "large.safetensors"
    save_checkpoint(path, weights, config)
    model = str(REPOSITORY / "test" / "smallest_two_stage.yaml")
    assert main(["convert", str(path), "-o", str(tmp_path / "half.safetensors"), "--model", model, "--half"]) == 1
    assert "queries.embedding.weight holds 1e+06" in capsys.readouterr().err


def test_an_error_model_is_written_and_kept(tmp_path: Path) -> None:
    deviations = Deviations(20, radial_m=1e-5, tangential_m=0.5, height_m=0.1, heading_rad=0.2, velocity_mps=1.0)
    model = ErrorModel((10.0, 30.0), (RingDeviations("car", 1, deviations),))
    file = tmp_path / "errors.yaml"
    file.write_text(json.dumps(asdict(model)), encoding="utf-8")  # as evaluate writes it
    config = str(REPOSITORY / "test" / "smallest_two_stage.yaml")
    plain, told, half = (tmp_path / f"{name}.safetensors" for name in ("plain", "told", "half"))
    save_checkpoint(plain, small_weights()[1], small_weights()[0])
    assert load_detector(plain).error_model is None
    assert main(["convert", str(plain), "-o", str(told), "--model", config, "--error-model", str(file)]) == 0
    assert main(["convert", str(told), "-o", str(half), "--model", config, "--half"]) == 0
    assert load_detector(told).error_model == load_detector(half).error_model == model


RISING = ",".join(f"{number / 10}" for number in range(10))


def test_a_recommended_score_is_written_and_kept(tmp_path: Path) -> None:
    model = str(REPOSITORY / "test" / "smallest_two_stage.yaml")
    config = load_yaml(ModelConfig, Path(model))
    plain, recommending, half = (tmp_path / f"{name}.safetensors" for name in ("plain", "recommending", "half"))
    save_checkpoint(plain, build_network(config).state_dict(), config)
    assert main(["convert", str(plain), "-o", str(recommending), "--model", model, "--score-threshold", RISING]) == 0
    assert main(["convert", str(recommending), "-o", str(half), "--model", model, "--half"]) == 0
    found = [read_checkpoint(path).score_thresholds for path in (plain, recommending, half)]
    assert found == [None, *[tuple(map(float, RISING.split(",")))] * 2]
