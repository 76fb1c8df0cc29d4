"""That exported files give what PyTorch gives, to 1e-4; thresholds let noise through."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support import REPOSITORY, SMALLEST
from torch import Tensor

from bevformer_ros.benchmarks import frames
from bevformer_ros.config import load_yaml
from bevformer_ros.inference.export import Half, _write_onnx, _write_program, export, halves
from bevformer_ros.inference.network_preparation import prepare_for_inference
from bevformer_ros.inference.pipeline import load_detector
from bevformer_ros.model.config import ModelConfig, ProposalConfig
from bevformer_ros.model.network import BEVFormerV2, build_network
from bevformer_ros.resources import config_file

SMALLEST_TWO_STAGE = REPOSITORY / "test" / "smallest_two_stage.yaml"


def network_of(file: Path) -> BEVFormerV2:
    config = load_yaml(ModelConfig, file)
    if config.proposals is not None:
        config = replace(config, proposals=ProposalConfig(score_threshold=0.0, minimum_score=0.0, count=10))
    torch.manual_seed(0)
    return prepare_for_inference(build_network(config), torch.device("cpu"))


def pictures(network: BEVFormerV2, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What halves() proposes as inputs of encode, with contents."""
    images, valid, _, _, _ = given
    size = float(images.shape[-1])
    intrinsics = torch.tensor([[size, 0.0, size / 2], [0.0, size, 20.0], [0.0, 0.0, 1.0]])
    projections = torch.from_numpy(frames.projections(network.config))[None].float()
    camera_from_bev = torch.linalg.inv(_square(intrinsics)) @ projections
    return (
        50 * torch.randn_like(images),
        valid,
        intrinsics.expand(1, valid.shape[1], -1, -1).contiguous(),
        camera_from_bev,
        projections,
    )


def _square(intrinsics: Tensor) -> Tensor:
    matrix = torch.eye(4)
    matrix[:3, :3] = intrinsics
    return matrix


def contents(network: BEVFormerV2) -> list[tuple[Half, tuple[Tensor, ...], tuple[Tensor, ...]]]:
    """Both halves with inputs and what PyTorch makes of them."""
    encode, detect = halves(network)
    with torch.no_grad():
        images = pictures(network, encode.inputs)
        encoded = encode.module(*images)
        bevs = (network.without_history(encoded[0]).contiguous(), *encoded[1 : len(detect.inputs)])
        return [(encode, images, encoded), (detect, bevs, detect.module(*bevs))]


def assert_same(half: Half, actual: list[Tensor], expected: tuple[Tensor, ...]) -> None:
    assert len(actual) == len(expected) == len(half.output_names)
    for name, ours, theirs in zip(half.output_names, actual, expected, strict=True):
        assert ours.shape == theirs.shape, name
        difference = (ours.double() - theirs.double()).abs().max()
        assert difference <= 1e-4 * max(float(theirs.double().abs().max()), 1.0), name


@pytest.mark.parametrize("file", [SMALLEST, SMALLEST_TWO_STAGE], ids=["one stage", "two stages"])
def test_torch_programs(file: Path, tmp_path: Path) -> None:
    for half, given, expected in contents(network_of(file)):
        _write_program(half, tmp_path / "half.pt2")
        program = torch.export.load(tmp_path / "half.pt2").module()
        assert_same(half, list(program(*given)), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "file",
    [SMALLEST, SMALLEST_TWO_STAGE, config_file("models", "tiny"), config_file("models", "demo")],
    ids=["one stage", "two stages", "tiny", "demo"],
)
def test_onnx(file: Path, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    network = network_of(file)
    for half, given, expected in contents(network):
        _write_onnx(half, tmp_path / "half.onnx")
        session = runtime.InferenceSession(tmp_path / "half.onnx", providers=["CPUExecutionProvider"])
        read = {entry.name for entry in session.get_inputs()}
        named = zip(half.input_names, given, strict=True)
        outputs = session.run(None, {name: value.numpy() for name, value in named if name in read})
        assert_same(half, [torch.from_numpy(output) for output in outputs], expected)
        if "proposal_valid" in half.output_names:
            assert outputs[half.output_names.index("proposal_valid")].any()  # there was something to select


@pytest.mark.slow
def test_onnx_of_the_shipped_weights(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    for half in halves(load_detector("demo").network):
        _write_onnx(half, tmp_path / f"{half.name}.onnx")
        assert (tmp_path / f"{half.name}.onnx").stat().st_size


def test_files_are_named_after_the_halves(tmp_path: Path) -> None:
    files = export(network_of(SMALLEST), "torch-export", tmp_path / "out")
    assert [file.name for file in files] == ["encode.pt2", "detect.pt2"]
    assert all(file.stat().st_size for file in files)
