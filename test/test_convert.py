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

from bevformer_ros.cli import main
from bevformer_ros.model.checkpoint import NOT_IN_THE_NETWORK, name_from_official, read_checkpoint


@pytest.mark.parametrize("path", golden_cases.variants("case6_mmcv_checkpoint"))
def test_an_official_checkpoint_becomes_ours(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors, description = golden_cases.load(path)
    config = model_config(description["model_cfg"])
    model, output = tmp_path / "model.yaml", tmp_path / "model.safetensors"
    model.write_text(yaml.safe_dump(json.loads(json.dumps(asdict(config)))), encoding="utf-8")
    official = path.with_name(description["checkpoint_file"])
    assert main(["convert", str(official), str(output), "--model", str(model)]) == 0
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
    assert main(["convert", str(official), str(output), "--model", "tiny"]) == 1
    assert "is it the right model configuration?" in capsys.readouterr().err
    assert not output.exists()
