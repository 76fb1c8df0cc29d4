"""The two halves of the forward pass as files for other runtimes: ONNX, torch.export and AOTInductor.

`encode` maps the images of one frame to its BEV map (and proposals), `detect` the BEV maps of all frames of the history
to boxes. What lies between them, the choice of past frames and their way into the current BEV frame, stays with the
caller. Everything is float32, for one set of images, with shapes that the configuration fixes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from bevformer_ros.model.attention.deformable_attention import DeformableAttention
from bevformer_ros.model.attention.torch_sampling import grid_sample_attention
from bevformer_ros.model.box_coding import Boxes, decode_boxes
from bevformer_ros.model.network import BEVFormerV2, NetworkInputs
from bevformer_ros.model.proposals import Proposals

Format = Literal["onnx", "torch-export", "aoti"]
OPSET = 20  # the first whose GridSample is that of PyTorch in all modes
_SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch-export": ".pt2", "aoti": ".aoti.pt2"}


class Half(NamedTuple):
    """One of the two functions, inputs that fit it (their values mean nothing), and names of what goes in and out."""

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
        self.gives_levels = temporal.mode == "reencode" and len(temporal.frames) > 1

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        encoded = self.network.encode(NetworkInputs(*inputs))
        levels = encoded.levels if self.gives_levels else ()
        return (encoded.bev, *(encoded.proposals or ()), *levels)


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


@torch.no_grad()
def halves(network: BEVFormerV2) -> tuple[Half, Half]:
    """network: a Detector's on the CPU in float32, which samples in another way from then on."""
    for module in network.modules():
        if isinstance(module, DeformableAttention):
            module.sample = grid_sample_attention  # the form that ONNX has an operator for
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
    encode, detect = _Encode(network), _Detect(network)
    outputs = encode(*inputs)
    found = () if network.proposal_maker is None else Proposals._fields
    levels = tuple(f"level{index}" for index in range(len(outputs) - 1 - len(found)))
    bevs = network.without_history(outputs[0]).contiguous()
    proposals = tuple(f"proposal_{name}" for name in found)
    boxes = (*Boxes._fields, "scores", "labels", "query", "valid", "from_proposal")
    return (
        Half("encode", encode, tuple(inputs), NetworkInputs._fields, ("bev", *proposals, *levels)),
        Half("detect", detect, (bevs, *outputs[1 : 1 + len(found)]), ("bevs", *proposals), boxes),
    )


def export(network: BEVFormerV2, form: Format, folder: Path) -> list[Path]:
    """The files written, one for each half. network: see halves. Raises ValueError where a module is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    write: Callable[[Half, Path], None] = {"onnx": _write_onnx, "torch-export": _write_program, "aoti": _write_aoti}[
        form
    ]
    files = []
    for half in halves(network):
        files.append(folder / f"{half.name}{_SUFFIXES[form]}")
        write(half, files[-1])
    return files


def _write_onnx(half: Half, file: Path) -> None:
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
        half.module.eval(),
        half.inputs,
        file,
        input_names=half.input_names,
        output_names=half.output_names,
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
        custom_translation_table={torch.ops.aten.sort.stable: stable_sort},
    )


def _program(half: Half) -> torch.export.ExportedProgram:
    with torch.no_grad():
        return torch.export.export(half.module.eval(), half.inputs)


def _write_program(half: Half, file: Path) -> None:
    torch.export.save(_program(half), file)


def _write_aoti(half: Half, file: Path) -> None:
    torch._inductor.aoti_compile_and_package(_program(half), package_path=str(file))
