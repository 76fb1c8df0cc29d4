"""Whatever a file holds, reading it ends in a configuration or checkpoint, or in a ValueError, without much memory."""

from __future__ import annotations

import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from support import REPOSITORY, SMALLEST, memory_growth_below

from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.model.checkpoint import read_checkpoint, save_checkpoint
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.model.network import build_network

QUICK = settings(max_examples=60, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
MOST_MEBIBYTES = 30  # of files that hold some kilobytes
RIG_TEXT = (REPOSITORY / "config" / "rigs" / "nuscenes.yaml").read_text()
TEXTS = {RigConfig: RIG_TEXT, ModelConfig: SMALLEST.read_text()}
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=10,
)


def load(kind, path: Path, content: bytes):
    path.write_bytes(content)
    with memory_growth_below(MOST_MEBIBYTES), suppress(ValueError):
        load_yaml(kind, path)


@QUICK
@given(content=st.binary(max_size=200), kind=st.sampled_from([RigConfig, ModelConfig]))
def test_yaml_of_noise(tmp_path, content, kind):
    load(kind, tmp_path / "noise.yaml", content)


@QUICK
@given(
    kind=st.sampled_from([RigConfig, ModelConfig]),
    cuts=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 20), st.text(max_size=5)), min_size=1, max_size=4),
)
def test_yaml_with_damage(tmp_path, kind, cuts):
    text = TEXTS[kind]
    for position, length, new in cuts:
        position %= len(text)
        text = text[:position] + new + text[position + length :]
    load(kind, tmp_path / "damaged.yaml", text.encode("utf-8", "replace"))


@QUICK
@given(kind=st.sampled_from([RigConfig, ModelConfig]), data=st.data())
def test_yaml_with_another_value(tmp_path, kind, data):
    content = yaml.safe_load(TEXTS[kind])
    content[data.draw(st.sampled_from(sorted(content)))] = data.draw(PLAIN)
    load(kind, tmp_path / "changed.yaml", yaml.safe_dump(content).encode())


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """The bytes of a small file of ours, of one without configuration, and of one as mmcv saves it."""
    folder = tmp_path_factory.mktemp("checkpoints")
    config = load_yaml(ModelConfig, SMALLEST)
    weights = dict(list(build_network(config).state_dict().items())[:3])
    save_checkpoint(folder / "ours.safetensors", weights, config)
    save_file(weights, folder / "bare.safetensors")
    torch.save({"state_dict": weights}, folder / "official.pth")
    return [path.read_bytes() for path in sorted(folder.iterdir())]


@QUICK
@given(
    which=st.integers(0, 2),
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=5),
    end=st.floats(0, 2),
    suffix=st.sampled_from([".safetensors", ".pth"]),
)
def test_checkpoints_with_damage(tmp_path, checkpoints, which, changes, end, suffix):
    content = bytearray(checkpoints[which])
    for position, value in changes:
        content[position % min(len(content), 4000)] = value
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(content[: round(end * len(content))])
    with memory_growth_below(MOST_MEBIBYTES), suppress(ValueError):
        assert read_checkpoint(path).weights is not None


def test_an_archive_that_unfolds_is_refused(tmp_path):
    torch.save({"state_dict": {"a": torch.zeros(2**18)}}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(tmp_path / "bomb.pth", "w") as bomb:
        for entry in plain.infolist():
            bomb.writestr(entry.filename, plain.read(entry), zipfile.ZIP_DEFLATED)
    assert read_checkpoint(tmp_path / "plain.pth").weights["a"].shape == (2**18,)
    with pytest.raises(ValueError, match=r"bomb\.pth: .* records unfold to \d+ bytes, more than the file has"):
        read_checkpoint(tmp_path / "bomb.pth")


def test_a_tensor_of_which_the_file_holds_one_number_is_refused(tmp_path):
    torch.save({"state_dict": {"a": torch.zeros(1).expand(2**40)}}, tmp_path / "wide.pth")
    with pytest.raises(ValueError, match=r"wide\.pth: a has 4398046511104 bytes, more than the file"):
        read_checkpoint(tmp_path / "wide.pth")
