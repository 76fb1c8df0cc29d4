"""Files that are no checkpoint, files that want to run code, and weights that do not fit."""

from __future__ import annotations

import json
import os
import pickle
from collections import OrderedDict
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support import REPOSITORY
from torch import nn

from bevformer_ros.config import load_yaml
from bevformer_ros.model.checkpoint import load_weights, name_from_official, read_checkpoint, save_checkpoint
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.model.network import build_network

TINY = REPOSITORY / "config" / "models" / "tiny.yaml"


class RunsCode:
    """Pickled, this asks the reader to call os.mkdir."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("place", ["meta", "state_dict"])
def test_a_file_that_tries_to_run_code_is_refused(tmp_path: Path, zipped: bool, place: str) -> None:
    trace = tmp_path / "it_ran"
    content = {"meta": {}, "state_dict": OrderedDict(weight=torch.zeros(2)), "optimizer": {}}
    content[place]["trap"] = RunsCode(trace)
    path = tmp_path / "trap.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"trap\.pth: refused.*could run code.*mkdir"):
        read_checkpoint(path)
    assert not trace.exists()


def test_a_bare_pickle_that_tries_to_run_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trap.pth"
    path.write_bytes(pickle.dumps({"state_dict": RunsCode(tmp_path / "it_ran")}, protocol=2))
    with pytest.raises(ValueError, match=r"trap\.pth"):
        read_checkpoint(path)
    assert not (tmp_path / "it_ran").exists()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_what_mmcv_leaves_in_a_checkpoint_is_admitted(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "official.pth"
    meta = {"epoch": 24, "hook_msgs": {"best_score": np.float64(0.5)}, "config": "model = dict()"}
    state = OrderedDict({"img_backbone.conv1.weight": torch.ones(2), "pts_bbox_head.code_weights": torch.ones(10)})
    torch.save({"meta": meta, "state_dict": state, "optimizer": {}}, path, _use_new_zipfile_serialization=zipped)
    checkpoint = read_checkpoint(path)
    assert list(checkpoint.weights) == ["backbone.stem.conv.weight"]
    assert checkpoint.left_out == ("pts_bbox_head.code_weights",)
    assert checkpoint.config is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.pth", None, "no such file"),
        ("empty.pth", b"", "not a readable PyTorch checkpoint"),
        ("text.pth", b"hello", "text.pth: "),
        ("text.safetensors", b"hello", "not a readable safetensors file"),
    ],
)
def test_files_that_are_no_checkpoint(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_checkpoint(tmp_path / name)


def test_tensors_without_a_state_dict(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "plain.pth")
    with pytest.raises(ValueError, match="not a checkpoint as mmcv saves it"):
        read_checkpoint(tmp_path / "plain.pth")


def test_safetensors_without_a_configuration(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / "bare.safetensors")
    with pytest.raises(ValueError, match="no model configuration inside"):
        read_checkpoint(tmp_path / "bare.safetensors")


def test_there_and_back_with_the_configuration(tmp_path: Path) -> None:
    config = load_yaml(ModelConfig, TINY)
    network = build_network(config)
    save_checkpoint(tmp_path / "tiny.safetensors", network.state_dict(), config)
    checkpoint = read_checkpoint(tmp_path / "tiny.safetensors")
    assert checkpoint.config == config
    other = build_network(checkpoint.config)
    assert load_weights(other, checkpoint.weights) == []
    for name, tensor in network.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name


def test_ours_are_named_safetensors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"name it \*\.safetensors"):
        save_checkpoint(tmp_path / "weights.pth", {}, load_yaml(ModelConfig, TINY))


def test_every_problem_is_named() -> None:
    weights = {"weight": torch.ones(3, 2), "bias": torch.ones(4), "extra": torch.ones(1)}
    del weights["weight"]
    layer = nn.Linear(2, 3)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (asserted below)
        load_weights(layer, weights)
    message = str(caught.value)
    assert "missing weight" in message
    assert "unexpected extra" in message
    assert "misshaped bias: (4,), the model has (3,)" in message


def test_partial_loading_takes_what_fits_and_tells() -> None:
    layer = nn.Linear(2, 3)
    before = layer.bias.clone()
    problems = load_weights(layer, {"weight": torch.ones(3, 2), "bias": torch.ones(4)}, partial=True)
    assert problems == ["misshaped bias: (4,), the model has (3,)"]
    assert torch.equal(layer.weight, torch.ones(3, 2))
    assert torch.equal(layer.bias, before)


def test_an_unknown_name_stays_as_it_is() -> None:
    assert name_from_official("some.other.weight") == "some.other.weight"


def saved(path: Path, metadata: dict[str, str], **tensors: torch.Tensor) -> Path:
    """A file of ours whose configuration is tiny's."""
    config = json.dumps(asdict(load_yaml(ModelConfig, TINY)))
    save_file(tensors or {"weight": torch.zeros(1)}, path, {"bevformer_ros.model_config": config, **metadata})
    return path


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_tensor_that_is_not_finite_is_named(tmp_path: Path, value: float) -> None:
    path = saved(tmp_path / "a.safetensors", {}, good=torch.zeros(3), bad=torch.tensor([0.0, value]))
    with pytest.raises(ValueError, match=r"a\.safetensors: bad holds NaN or infinity"):
        read_checkpoint(path)


BY_CLASS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@pytest.mark.parametrize(
    ("metadata", "thresholds"),
    [
        ({}, None),
        ({"score_threshold": "0.31"}, (0.31,) * 10),
        ({"score_threshold": json.dumps(BY_CLASS)}, BY_CLASS),
    ],
)
def test_what_scores_weights_recommend(tmp_path: Path, metadata: dict[str, str], thresholds) -> None:
    assert read_checkpoint(saved(tmp_path / "a.safetensors", metadata)).score_thresholds == thresholds


@pytest.mark.parametrize(
    "text", ["high", "NaN", "2", "", "[0.1, 0.2]", json.dumps([*BY_CLASS[:-1], 1.1]), "true", "{}"]
)
def test_recommended_scores_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"score_threshold in its metadata is .* one for each class: barrier, bicycle"):
        read_checkpoint(saved(tmp_path / "a.safetensors", {"score_threshold": text}))


def test_recommended_scores_that_are_none_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="score_threshold in its metadata is '1.5'"):
        save_checkpoint(tmp_path / "a.safetensors", {}, load_yaml(ModelConfig, TINY), 1.5)
    assert not (tmp_path / "a.safetensors").exists()
