"""How long one frame takes on a GPU at least, operator by operator as they run, without that GPU.

The prepared network runs on the meta device, where tensors have shapes but no memory, and every operator that reaches
it is counted: what it computes, and the bytes that it reads and writes. Counts are exact; the time is a model with two
assumptions, `_MATRIX_SHARE` and `_SHORTEST_KERNEL_S`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import conv_flop_count, flop_registry, register_flop_formula

from bevformer_ros.benchmarks import frames as benchmark_frames
from bevformer_ros.benchmarks.data_sheets import DataSheet
from bevformer_ros.inference import stages
from bevformer_ros.inference.bev_buffer import BevBuffer, EncodedFrame
from bevformer_ros.inference.history import HistoryConfig
from bevformer_ros.inference.network_preparation import prepare_for_inference
from bevformer_ros.model.bev_encoder import camera_view, pillar_points, project_pillars
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.model.network import NetworkInputs, build_network
from bevformer_ros.types import SECOND_NS

META = torch.device("meta")

# Part of the data sheet's rate that large convolutions and products of matrices reach in practice.
_MATRIX_SHARE = 0.55
# From the start of one kernel of a CUDA graph to that of the next, however little it does.
_SHORTEST_KERNEL_S = 2e-6
# Instructions for a channel of a sample, of which a multiplication with addition is one and counts twice in data
# sheets; of the whole kernel, for one image, as compiled for sm_90 (test/compiled_kernels.py).
_SAMPLE_INSTRUCTIONS = 16  # where there are several levels
_SAMPLE_INSTRUCTIONS_OF_ONE_LEVEL = 24

_MATRICES = ("mm", "addmm", "bmm", "baddbmm", "_addmm_activation", "_scaled_dot_product_efficient_attention")
_COPIES = ("_to_copy", "copy_", "clone", "cat", "index_select", "gather", "index", "embedding", "constant_pad_nd")
_READ_BY_INDEX = ("index_select", "gather", "index", "embedding")  # as much as they write
_NO_KERNEL = ("empty", "new_empty", "empty_strided", "empty_like", "_unsafe_view", "detach", "lift_fresh")
KINDS = ("convolution", "bias", "matrices", "sampling", "elementwise", "copies")


@register_flop_formula(torch.ops.bevformer_ros.convolve)
def _flops_of_convolve(x: list[int], weight: list[int], *_others: Any, out_shape: list[int], **_named: Any) -> int:
    return int(conv_flop_count(x, weight, out_shape))


@register_flop_formula(torch.ops.aten._addmm_activation)
def _flops_of_addmm_activation(_bias: Any, x: list[int], weight: list[int], **_named: Any) -> int:
    return 2 * x[0] * x[1] * weight[1]


@dataclass(frozen=True)
class Operator:
    """kind: one of KINDS; elementwise is all that has no other, such as norms and sorting. flops: of the matrix units.
    instructions: of bilinear samples."""

    stage: str
    name: str
    kind: str
    flops: int
    bytes: int
    instructions: int = 0

    def seconds(self, sheet: DataSheet, precision: str) -> float:
        """As can be expected of it."""
        matrices = self.flops / (_MATRIX_SHARE * sheet.matrices(precision))
        return max(matrices, self._other_seconds(sheet), _SHORTEST_KERNEL_S)

    def seconds_at_peak(self, sheet: DataSheet, precision: str) -> float:
        """By the data sheet alone."""
        return max(self.flops / sheet.matrices(precision), self._other_seconds(sheet))

    def _other_seconds(self, sheet: DataSheet) -> float:
        return max(2 * self.instructions / sheet.float32, self.bytes / sheet.memory)


@dataclass(frozen=True)
class StageCost:
    """bytes: by kind of operator. ms: as can be expected. peak_ms: by the data sheet alone. floor_ms: of one kernel for
    all of the stage, which keeps what it computes to itself: matrix products at the data sheet's full rate, or the
    bytes that convolutions, matrix products and sampling read and write."""

    gflop: float
    bytes: dict[str, int]
    kernels: int
    ms: float
    peak_ms: float
    floor_ms: float


@dataclass(frozen=True)
class Roofline:
    """bytes, kernels, and times as in StageCost: sums over the stages."""

    model: str
    precision: str
    device: str
    source: str
    stages: dict[str, StageCost]
    total_ms: float
    peak_ms: float
    floor_ms: float
    bytes: int
    kernels: int


def roofline(config: ModelConfig, precision: str, sheet: DataSheet) -> Roofline:
    operators = count_operators(config, precision)
    by_stage: dict[str, list[Operator]] = {}
    for operator in operators:
        by_stage.setdefault(operator.stage, []).append(operator)
    costs = {stage: _cost(counted, sheet, precision) for stage, counted in by_stage.items()}
    return Roofline(
        model=config.name,
        precision=precision,
        device=sheet.name,
        source=sheet.source,
        stages=costs,
        total_ms=sum(cost.ms for cost in costs.values()),
        peak_ms=sum(cost.peak_ms for cost in costs.values()),
        floor_ms=sum(cost.floor_ms for cost in costs.values()),
        bytes=sum(operator.bytes for operator in operators),
        kernels=len(operators),
    )


def _cost(operators: list[Operator], sheet: DataSheet, precision: str) -> StageCost:
    flops = sum(operator.flops for operator in operators)
    necessary = sum(
        operator.bytes for operator in operators if operator.kind in ("convolution", "matrices", "sampling")
    )
    return StageCost(
        gflop=flops / 1e9,
        bytes={kind: sum(operator.bytes for operator in operators if operator.kind == kind) for kind in KINDS},
        kernels=len(operators),
        ms=1e3 * sum(operator.seconds(sheet, precision) for operator in operators),
        peak_ms=1e3 * sum(operator.seconds_at_peak(sheet, precision) for operator in operators),
        floor_ms=1e3 * max(flops / sheet.matrices(precision), necessary / sheet.memory),
    )


@torch.no_grad()
def count_operators(config: ModelConfig, precision: str) -> list[Operator]:
    """Of one frame with a full history, from the images on the device to the boxes, in their order."""
    with META:
        network = build_network(config)
    dtype = getattr(torch, precision)
    network = prepare_for_inference(network, META, dtype)
    buffer = BevBuffer(config.temporal, HistoryConfig(), config.bev, network.encode_bev)
    width, height = config.image.padded_size
    cameras = len(config.cameras)
    images = torch.empty(cameras, height, width, 3, device=META, dtype=dtype).permute(0, 3, 1, 2)[None]
    matrices = torch.empty(1, cameras, 4, 4, device=META)
    valid = torch.ones(1, cameras, dtype=torch.bool, device=META)
    inputs = NetworkInputs(images, valid, matrices[..., :3, :3].contiguous(), matrices, matrices)
    encoded = network.encode(inputs)
    now: EncodedFrame | None = None
    for number in config.temporal.frames:
        frame = EncodedFrame(
            round(number * config.temporal.interval_s * SECOND_NS),
            np.eye(4),
            encoded.bev,
            encoded.features,
            np.tile(np.eye(4), (cameras, 1, 1)),
            valid,
        )
        buffer.store(frame)
        now = frame if number == 0 else now
    assert now is not None
    recall = buffer.recall(now)
    with _OneKernelAttention(), _Counter(_seen_part(config)) as counter:
        encoded = network.encode(inputs, mark=counter.mark)
        stages.detect(network, buffer, encoded.bev, recall.past, encoded.proposals, counter.mark)
        counter.mark("boxes")
    return counter.operators


def _seen_part(config: ModelConfig) -> float:
    """Of all pairs of a cell and a camera, those in which the cell is seen, in the simulated car's rig."""
    projections = torch.from_numpy(benchmark_frames.projections(config))[None].float()
    width, height = config.image.padded_size
    points = pillar_points(config.bev, config.encoder.pillar_points, projections.device)
    share = camera_view(project_pillars(points, projections, (height, width), None)).share
    return float((share > 0).float().mean())


class _OneKernelAttention(TorchFunctionMode):
    """On the meta device torch takes attention apart; a GPU has one kernel for it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        query, key, value = args
        mask = kwargs.get("attn_mask")
        bias = None if mask is None else mask.expand(*query.shape[:-1], key.shape[-2])
        return torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, bias, False)[0]


class _Counter(TorchDispatchMode):
    def __init__(self, seen: float) -> None:
        super().__init__()
        self.operators: list[Operator] = []
        self._seen = seen
        self._open: list[Operator] = []

    def mark(self, stage: str) -> None:
        self.operators += [replace(operator, stage=stage) for operator in self._open]
        self._open.clear()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func._schema.name.partition("::")[2]
        if name not in _NO_KERNEL and not _is_view(func):
            self._open += self._count(func, name, args, kwargs, result)
        return result

    def _count(self, func: Any, name: str, args: Any, kwargs: Any, result: Any) -> Iterable[Operator]:
        written = _bytes(result)
        read = written + _bytes(args[1:]) if name in _READ_BY_INDEX else _bytes((args, kwargs))
        if name == "copy_":
            read = _bytes(args[1])
        formula = flop_registry.get(func._overloadpacket)
        flops = int(formula(*args, **kwargs, out_val=result)) if formula else 0
        if name == "convolution":
            bias = args[2]
            yield Operator("", name, "convolution", flops, read + written - _bytes(bias))
            if bias is not None:  # torch adds it by itself where cuDNN convolves
                yield Operator("", "bias", "bias", 0, 2 * written + _bytes(bias))
            return
        yield Operator("", name, _kind(name), flops, read + written, self._instructions(name, args))

    def _instructions(self, name: str, args: Any) -> int:
        if name != "sample":
            return 0
        value, logits = args[0], args[1][:, :, 0]
        images, levels = value.shape[1], logits.shape[3]
        seen = images * self._seen if images > 1 else 1
        each = _SAMPLE_INSTRUCTIONS if levels > 1 else _SAMPLE_INSTRUCTIONS_OF_ONE_LEVEL
        return round(logits.numel() * value.shape[-1] * seen * each)


def _kind(name: str) -> str:
    if name in _MATRICES:
        return "matrices"
    if name in _COPIES:
        return "copies"
    return {"convolve": "convolution", "sample": "sampling"}.get(name, "elementwise")


def _is_view(func: Any) -> bool:
    return any(value.alias_info is not None and not value.alias_info.is_write for value in func._schema.returns)


def _bytes(tensors: object) -> int:
    """Of the different numbers in all of them: what is repeated by a stride of zero lies in the cache."""
    total = 0
    for leaf in tree_leaves(tensors):
        if isinstance(leaf, Tensor):
            sizes = [size for size, stride in zip(leaf.shape, leaf.stride(), strict=True) if stride]
            total += int(np.prod(sizes, dtype=np.int64)) * leaf.element_size()
    return total


def table(result: Roofline) -> str:
    lines = [
        f"{result.model}, {result.precision}, on {result.device} by its data sheet ({result.source})",
        f"  {'GB':<12}" + "".join(f"{kind:>12}" for kind in KINDS) + f"{'GFLOP':>9}{'kernels':>9}"
        f"{'ms':>8}{'at peak':>9}{'floor':>8}",
    ]
    for stage, cost in result.stages.items():
        gigabytes = "".join(f"{cost.bytes[kind] / 1e9:>12.2f}" for kind in KINDS)
        lines.append(
            f"  {stage:<12}{gigabytes}{cost.gflop:>9.1f}{cost.kernels:>9}"
            f"{cost.ms:>8.2f}{cost.peak_ms:>9.2f}{cost.floor_ms:>8.2f}"
        )
    gflop = sum(cost.gflop for cost in result.stages.values())
    lines.append(
        f"  {f'{result.bytes / 1e9:.2f} GB':<{12 + 12 * len(KINDS)}}{gflop:>9.1f}{result.kernels:>9}"
        f"{result.total_ms:>8.2f}{result.peak_ms:>9.2f}{result.floor_ms:>8.2f}"
    )
    return "\n".join(lines)
