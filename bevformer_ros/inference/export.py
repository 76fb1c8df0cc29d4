"""The forward pass as files for other runtimes: ONNX, torch.export and AOTInductor.

`encode` maps the images of one frame to its BEV map (and proposals), `align`, of models with a history, what is left of
one past frame to its BEV map in the current BEV frame, and `detect` the BEV maps of all frames to boxes. Which past
frames these are is for the caller to choose. Everything is float32, for one set of images, with shapes that the
configuration fixes. `encode` always takes `seen`, of which a car without masks gives True everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from bevformer_ros.inference.bev_buffer import warp_bev
from bevformer_ros.inference.exported_model import ExportedModel
from bevformer_ros.inference.pipeline import Detector
from bevformer_ros.inference.results import HostBoxes
from bevformer_ros.model.attention.deformable_attention import DeformableAttention, Sampling
from bevformer_ros.model.attention.plugin_sampling import plugin_attention
from bevformer_ros.model.attention.torch_sampling import deformable_attention_in_torch, grid_sample_attention
from bevformer_ros.model.box_coding import decode_boxes
from bevformer_ros.model.network import BEVFormerV2, NetworkInputs
from bevformer_ros.model.proposals import Proposals

Format = Literal["onnx", "torch-export", "aoti"]
Attention = Literal["gridsample", "plugin"]
OPSET = 20  # the first whose GridSample is that of PyTorch in all modes
_SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch-export": ".pt2", "aoti": ".aoti.pt2"}


class Part(NamedTuple):
    """One of the functions, inputs that fit it (their values mean nothing), and names of what goes in and out."""

    name: str
    module: nn.Module
    inputs: tuple[Tensor, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]


class _Encode(nn.Module):
    def __init__(self, network: BEVFormerV2) -> None:
        super().__init__()
        self.network = network
        temporal = network.config.temporal
        self.gives_features = temporal.mode == "reencode" and len(temporal.frames) > 1

    def forward(self, seen: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        encoded = self.network.encode(NetworkInputs(*inputs), seen)
        features = (encoded.features,) if self.gives_features else ()
        return (encoded.bev, *(encoded.proposals or ()), *features)


class _Detect(nn.Module):
    def __init__(self, network: BEVFormerV2) -> None:
        super().__init__()
        self.network = network

    def forward(self, bevs: Tensor, *proposals: Tensor) -> tuple[Tensor, ...]:
        output = self.network.detect(bevs, Proposals(*proposals) if proposals else None)
        config = self.network.config
        logits, codes = output.class_logits[-1], output.box_codes[-1]
        decoded = decode_boxes(logits, codes, config.max_detections, config.score_threshold, output.padding_mask)
        return (*decoded.boxes, decoded.scores, decoded.labels, decoded.query, decoded.valid, output.from_proposal)


class _Warp(nn.Module):
    """align of the mode warp. bev: (1, Q, C) in a past frame. motion: (1, 2, 3), as of warp_bev."""

    def __init__(self, network: BEVFormerV2) -> None:
        super().__init__()
        self.grid = network.config.bev

    def forward(self, bev: Tensor, motion: Tensor) -> tuple[Tensor]:
        return (warp_bev(bev, motion, self.grid),)


class _Reencode(nn.Module):
    """align of the mode reencode. features: of a past frame. image_from_bev: (1, N, 4, 4) from now's BEV frame."""

    def __init__(self, network: BEVFormerV2) -> None:
        super().__init__()
        self.network = network

    def forward(self, image_from_bev: Tensor, camera_valid: Tensor, features: Tensor) -> tuple[Tensor]:
        return (self.network.encode_bev(features, image_from_bev, camera_valid),)


@torch.no_grad()
def parts(network: BEVFormerV2, sample: Sampling) -> list[Part]:
    """network: a Detector's on the CPU in float32, which samples in this way from then on."""
    for module in network.modules():
        if isinstance(module, DeformableAttention):
            module.sample = sample
    config = network.config
    width, height = config.image.padded_size
    cameras = len(config.cameras)
    inputs = NetworkInputs(
        torch.zeros(1, cameras, 3, height, width),
        torch.ones(1, cameras, dtype=torch.bool),
        torch.eye(3).expand(1, cameras, -1, -1).clone(),
        torch.eye(4).expand(1, cameras, -1, -1).clone(),
        torch.eye(4).expand(1, cameras, -1, -1).clone(),
    )
    seen = torch.ones(1, cameras, height, width, dtype=torch.bool)
    encode, detect = _Encode(network), _Detect(network)
    outputs = encode(seen, *inputs)
    found = () if network.proposal_maker is None else Proposals._fields
    features = ("features",) if encode.gives_features else ()
    bevs = network.without_history(outputs[0]).contiguous()
    proposals = tuple(f"proposal_{name}" for name in found)
    written = [
        Part("encode", encode, (seen, *inputs), ("seen", *NetworkInputs._fields), ("bev", *proposals, *features)),
        Part("detect", detect, (bevs, *outputs[1 : 1 + len(found)]), ("bevs", *proposals), HostBoxes._fields),
    ]
    if features:
        given = (inputs.image_from_bev, inputs.camera_valid, *outputs[1 + len(found) :])
        written.append(
            Part("align", _Reencode(network), given, ("image_from_bev", "camera_valid", *features), ("aligned",))
        )
    elif len(config.temporal.frames) > 1:
        written.append(
            Part("align", _Warp(network), (outputs[0], torch.eye(2, 3)[None]), ("bev", "motion"), ("aligned",))
        )
    return written


def sampling(form: Format, attention: Attention = "gridsample") -> Sampling:
    """What the files of a format sample with. Raises ValueError for TensorRT's plugin in another format than ONNX."""
    if attention == "plugin":
        if form != "onnx":
            raise ValueError(f"the attention 'plugin' is for TensorRT, which reads onnx, not {form}: take 'gridsample'")
        return plugin_attention
    return grid_sample_attention if form == "onnx" else deformable_attention_in_torch


def export(detector: Detector, form: Format, folder: Path, attention: Attention = "gridsample") -> list[Path]:
    """The files written. detector: on the CPU in float32; its network samples in another way from then on. Raises
    ValueError where a module or compiler is missing, and for TensorRT's plugin in another format than ONNX."""
    sample = sampling(form, attention)
    folder.mkdir(parents=True, exist_ok=True)
    write: Callable[[Part, Path], None] = {"onnx": _write_onnx, "torch-export": _write_program, "aoti": _write_aoti}[
        form
    ]
    files = []
    for part in parts(detector.network, sample):
        files.append(folder / f"{part.name}{_SUFFIXES[form]}")
        write(part, files[-1])
    model = ExportedModel(
        detector.config, detector.trained, detector.recommended_score_thresholds, detector.error_model
    )
    return [*files, model.write(folder)]


def _write_onnx(part: Part, file: Path) -> None:
    try:
        import onnxscript
    except ImportError as error:
        raise ValueError(f"writing ONNX needs the Python module {error.name}: pip install onnx onnxscript") from error
    operators = onnxscript.values.Opset("", OPSET)

    def stable_sort(values: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
        """TopK of ONNX takes the lower index first, which is what stable means."""
        wide = operators.Cast(values, to=1)
        length = operators.Gather(operators.Shape(values), operators.Constant(value_ints=[dim]))
        best, index = operators.TopK(wide, length, axis=dim, largest=int(descending), sorted=1)
        return operators.CastLike(best, values), index

    torch.onnx.export(
        part.module.eval(),
        part.inputs,
        file,
        input_names=part.input_names,
        output_names=part.output_names,
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
        custom_translation_table={torch.ops.aten.sort.stable: stable_sort},
    )


def _program(part: Part) -> torch.export.ExportedProgram:
    with torch.no_grad():
        part.module(*part.inputs)  # what is made once must be there, or it would be made, and kept, of traced values
        return torch.export.export(part.module.eval(), part.inputs)


def _write_program(part: Part, file: Path) -> None:
    torch.export.save(_program(part), file)


def _write_aoti(part: Part, file: Path) -> None:
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler as error:
        raise ValueError("writing aoti needs a C++ compiler, g++ or what CXX names: install one") from error
    torch._inductor.aoti_compile_and_package(_program(part), package_path=str(file))
