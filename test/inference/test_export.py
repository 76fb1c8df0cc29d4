"""That exported files give what PyTorch gives, to 1e-4; thresholds let noise through."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from exported_networks import detector_of
from support import REPOSITORY, SMALLEST
from torch import Tensor

from bevformer_ros.benchmarks import frames
from bevformer_ros.inference.export import (
    Format,
    Part,
    _write_aoti,
    _write_onnx,
    _write_program,
    export,
    parts,
    sampling,
)
from bevformer_ros.inference.exported_model import ExportedModel
from bevformer_ros.model.attention.deformable_attention import DeformableAttention
from bevformer_ros.model.network import BEVFormerV2
from bevformer_ros.resources import config_file, model_file

SMALLEST_TWO_STAGE = REPOSITORY / "test" / "smallest_two_stage.yaml"


def pictures(network: BEVFormerV2, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What parts() proposes as inputs of encode, with contents."""
    seen, images, valid, _, _, _ = given
    size = float(images.shape[-1])
    intrinsics = torch.tensor([[size, 0.0, size / 2], [0.0, size, 20.0], [0.0, 0.0, 1.0]])
    projections = torch.from_numpy(frames.projections(network.config))[None].float()
    camera_from_bev = torch.linalg.inv(_square(intrinsics)) @ projections
    seen[:, 0, : seen.shape[2] // 2] = False
    return (
        seen,
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


def contents(network: BEVFormerV2, form: Format) -> list[tuple[Part, tuple[Tensor, ...], tuple[Tensor, ...]]]:
    """All parts with inputs and what PyTorch makes of them."""
    encode, detect, *align = parts(network, sampling(form))
    with torch.no_grad():
        images = pictures(network, encode.inputs)
        encoded = encode.module(*images)
        named = dict(zip(encode.output_names, encoded, strict=True))
        named.update(camera_valid=images[2], image_from_bev=images[5], motion=align[0].inputs[1] if align else None)
        named.update(bevs=network.without_history(encoded[0]).contiguous())
        given = [
            (encode, images),
            *((part, tuple(named[name] for name in part.input_names)) for part in (detect, *align)),
        ]
        return [(part, values, part.module(*values)) for part, values in given]


def assert_same(part: Part, actual: list[Tensor], expected: tuple[Tensor, ...]) -> None:
    assert len(actual) == len(expected) == len(part.output_names)
    for name, ours, theirs in zip(part.output_names, actual, expected, strict=True):
        assert ours.shape == theirs.shape, name
        difference = (ours.double() - theirs.double()).abs().max()
        assert difference <= 1e-4 * max(float(theirs.double().abs().max()), 1.0), name


FAST = [pytest.param(SMALLEST, id="one stage"), pytest.param(SMALLEST_TWO_STAGE, id="two stages")]
SLOW = [
    pytest.param(config_file("models", "tiny"), id="tiny", marks=pytest.mark.slow),
    pytest.param(model_file("demo"), id="demo", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("file", [*FAST, *SLOW])
def test_torch_programs(file: Path, tmp_path: Path) -> None:
    for part, given, expected in contents(detector_of(file).network, "torch-export"):
        _write_program(part, tmp_path / "part.pt2")
        program = torch.export.load(tmp_path / "part.pt2").module()
        assert_same(part, list(program(*given)), expected)


def test_torch_programs_of_a_model_that_encodes_the_past_anew(tmp_path: Path) -> None:
    for part, given, expected in contents(detector_of(SMALLEST, "reencode").network, "torch-export"):
        _write_program(part, tmp_path / "part.pt2")
        assert_same(part, list(torch.export.load(tmp_path / "part.pt2").module()(*given)), expected)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="AOTInductor needs a C++ compiler")
def test_aoti(tmp_path: Path) -> None:
    for part, given, expected in contents(detector_of(SMALLEST).network, "aoti"):
        _write_aoti(part, tmp_path / "part.aoti.pt2")
        run = torch._inductor.aoti_load_package(str(tmp_path / "part.aoti.pt2"))
        outputs = run(*given)
        assert_same(part, [outputs] if isinstance(outputs, Tensor) else list(outputs), expected)


@pytest.mark.slow
@pytest.mark.parametrize("file", [*FAST, *SLOW])
def test_onnx(file: Path, tmp_path: Path) -> None:
    assert_onnx_is_the_same(detector_of(file).network, tmp_path / "part.onnx")


@pytest.mark.slow
def test_onnx_of_a_model_that_encodes_the_past_anew(tmp_path: Path) -> None:
    assert_onnx_is_the_same(detector_of(SMALLEST, "reencode").network, tmp_path / "part.onnx")


def assert_onnx_is_the_same(network: BEVFormerV2, file: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    for part, given, expected in contents(network, "onnx"):
        _write_onnx(part, file)
        session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
        read = {entry.name for entry in session.get_inputs()}
        named = zip(part.input_names, given, strict=True)
        outputs = session.run(None, {name: value.numpy() for name, value in named if name in read})
        assert_same(part, [torch.from_numpy(output) for output in outputs], expected)
        if "proposal_valid" in part.output_names:
            assert outputs[part.output_names.index("proposal_valid")].any()  # there was something to select


@pytest.mark.slow
@pytest.mark.parametrize("file", [*FAST, SLOW[0]])
def test_onnx_with_the_plugin_of_tensorrt(file: Path, tmp_path: Path) -> None:
    assert_plugin_form_is_the_same(detector_of(file).network, tmp_path / "part.onnx")


@pytest.mark.slow
def test_onnx_with_the_plugin_of_a_model_that_encodes_the_past_anew(tmp_path: Path) -> None:
    assert_plugin_form_is_the_same(detector_of(SMALLEST, "reencode").network, tmp_path / "part.onnx")


def assert_plugin_form_is_the_same(network: BEVFormerV2, file: Path) -> None:
    reference = pytest.importorskip("onnx.reference")
    pytest.importorskip("onnxscript")
    from tensorrt_plugin import GatherElements, MultiscaleDeformableAttnPlugin_TRT

    expectations = contents(network, "onnx")
    for part, (_, given, expected) in zip(parts(network, sampling("onnx", "plugin")), expectations, strict=True):
        _write_onnx(part, file)
        graph = reference.ReferenceEvaluator(str(file), new_ops=[MultiscaleDeformableAttnPlugin_TRT, GatherElements])
        nodes = [node.op_type for node in graph.proto_.graph.node]
        attends = any(isinstance(module, DeformableAttention) for module in part.module.modules())
        assert (MultiscaleDeformableAttnPlugin_TRT.__name__ in nodes) == attends
        named = zip(part.input_names, given, strict=True)
        outputs = graph.run(None, {name: value.numpy() for name, value in named if name in graph.input_names})
        assert_same(part, [torch.from_numpy(np.array(output)) for output in outputs], expected)


def test_a_missing_compiler(tmp_path: Path) -> None:
    from torch._inductor import config

    nowhere = config.patch({"cpp.cxx": (None, str(tmp_path / "c++"))})
    with nowhere, pytest.raises(ValueError, match=r"aoti needs a C\+\+ compiler"):
        export(detector_of(SMALLEST), "aoti", tmp_path)


def test_the_plugin_is_refused_where_tensorrt_does_not_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'plugin' is for TensorRT, which reads onnx, not aoti: take 'gridsample'"):
        export(detector_of(SMALLEST), "aoti", tmp_path, "plugin")


def test_files_are_named_after_the_parts(tmp_path: Path) -> None:
    detector = detector_of(SMALLEST)
    detector.recommended_score_thresholds = 10 * (0.3,)
    files = export(detector, "torch-export", tmp_path / "out")
    assert [file.name for file in files] == ["encode.pt2", "detect.pt2", "align.pt2", "model.json"]
    assert all(file.stat().st_size for file in files)
    assert ExportedModel.read(tmp_path / "out") == ExportedModel(detector.config, False, 10 * (0.3,), None)
