"""How much arithmetic each stage of a network needs for one set of images, and the least time that can take.

Convolutions and products of matrices are counted by torch while the network runs on the meta device, where tensors
have shapes but no memory; the bilinear sampling by formula. Norms, activations, softmax and the handling of boxes
are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bevformer_ros.model.attention.deformable_attention import DeformableAttention
from bevformer_ros.model.attention.torch_sampling import LevelShapes, View
from bevformer_ros.model.bev_encoder import camera_view, pillar_points, project_pillars
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.model.network import BEVFormerV2, build_network

Result = TypeVar("Result")
Nested = Tensor | tuple[Tensor, ...] | list[Tensor]

# For each channel of a sample four corners are multiplied and added; its position, corner indices and weights cost
# about as much as four channels more.
_SAMPLE_FLOPS_PER_CHANNEL = 8
_SAMPLE_FLOPS_OF_POSITION = 32


@dataclass(frozen=True)
class StageWork:
    """A multiplication and an addition are two operations.

    convolutions, matrices (linear layers and attention among queries), samples: operations. numbers: that must at
    least cross the device's memory: the stage's weights, what it gets and what it gives, each once.
    """

    convolutions: float
    matrices: float
    samples: float
    numbers: float

    @property
    def flops(self) -> float:
        return self.convolutions + self.matrices + self.samples


@dataclass(frozen=True)
class DevicePeak:
    """What a device can do per second at best, by its data sheet.

    convolutions, matrices: operations of these kinds in the precision in question. samples: float32 operations outside
    the matrix units. memory: bytes.
    """

    convolutions: float
    matrices: float
    samples: float
    memory: float
    bytes_per_number: int


# By device name as torch tells it, and precision. In float32, torch lets convolutions use TF32 but not linear layers.
PEAKS = {
    "NVIDIA H200": {
        "float32": DevicePeak(494e12, 67e12, 67e12, 4.8e12, 4),
        "bfloat16": DevicePeak(989e12, 989e12, 67e12, 4.8e12, 2),
        "float16": DevicePeak(989e12, 989e12, 67e12, 4.8e12, 2),
    }
}


def floor_ms(work: StageWork, peak: DevicePeak) -> float:
    """Milliseconds below which no implementation of the stage can get: its busiest unit works without a pause.

    Matrix units, the other units and the memory may all work at the same time.
    """
    matrix_units = work.convolutions / peak.convolutions + work.matrices / peak.matrices
    return 1e3 * max(matrix_units, work.samples / peak.samples, work.numbers * peak.bytes_per_number / peak.memory)


def count_work(config: ModelConfig, image_from_bev: Tensor) -> dict[str, StageWork]:
    """The work of each stage for one set of images with a full history, in the order in which the stages run.

    image_from_bev: (1, N, 4, 4) on the CPU, to pixels of the padded image: a cell is sampled in the cameras that see
    it.
    """
    with torch.device("meta"):
        network = build_network(config).eval().requires_grad_(False)
        for module in network.modules():
            if isinstance(module, DeformableAttention):
                module.sample = _only_shape
        return _count_stages(network, _encoder_samples(config, image_from_bev), _decoder_samples(config))


def _count_stages(network: BEVFormerV2, encoder_samples: int, decoder_samples: int) -> dict[str, StageWork]:
    """Runs on the default device, which is meta."""
    config = network.config
    width, height = config.image.padded_size
    images = torch.empty(1, len(config.cameras), 3, height, width)
    matrices = torch.empty(1, len(config.cameras), 4, 4)
    intrinsics = matrices[..., :3, :3]
    stages: dict[str, StageWork] = {}

    levels, stages["backbone"] = _count(network.backbone, images[0], lambda: network.backbone(images[0]))
    maps, stages["neck"] = _count(network.neck, levels, lambda: network.neck(levels))
    features = tuple(level.unsqueeze(0) for level in maps)
    proposals = None
    if network.perspective_head is not None and network.proposal_maker is not None:
        proposals, stages["perspective head"] = _count(
            network.perspective_head, features, lambda: network.propose(features, intrinsics, matrices)
        )
    bev, encoder = _count(
        network.bev_encoder,
        features[: config.encoder.image_levels],
        lambda: network.encode_bev(features, matrices, None, (height, width)),
        encoder_samples,
    )
    stages["BEV encoder"] = encoder
    past = len(config.temporal.frames) - 1
    if past and config.temporal.mode == "reencode":
        stages[f"BEV encoder, {past} past frames"] = StageWork(*(past * count for count in astuple(encoder)))
    if network.temporal_fusion is not None:
        bevs = bev.unsqueeze(1).expand(-1, past + 1, -1, -1)
        bev, stages["temporal fusion"] = _count(network.temporal_fusion, bevs, lambda: network.fuse(bevs))
    _, stages["decoder"] = _count(network.decoder, bev, lambda: network.decode(bev, proposals), decoder_samples)
    return stages


def _count(
    module: nn.Module, inputs: Nested, stage: Callable[[], Result], samples: int = 0
) -> tuple[Result, StageWork]:
    """What the stage gives, and its work. samples: operations of the sampling in it."""
    with FlopCounterMode(display=False) as counter:
        outputs = stage()
    by_operator = counter.get_flop_counts()["Global"]
    convolutions = by_operator.get(torch.ops.aten.convolution, 0)
    return outputs, StageWork(
        convolutions=convolutions,
        matrices=sum(by_operator.values()) - convolutions,
        samples=samples,
        numbers=_numbers(tuple(module.parameters())) + _numbers(inputs) + _numbers(outputs),
    )


def _only_shape(value: Tensor, level_shapes: LevelShapes, offsets: Tensor, weights: Tensor, view: View) -> Tensor:
    return value.new_empty(*weights.shape[:2], value.shape[-2] * value.shape[-1])


def _numbers(tensors: object) -> int:
    if isinstance(tensors, Tensor):
        return tensors.numel()
    return sum(map(_numbers, tensors)) if isinstance(tensors, (tuple, list)) else 0


def _encoder_samples(config: ModelConfig, image_from_bev: Tensor) -> int:
    """Operations of sampling in all layers."""
    encoder = config.encoder
    width, height = config.image.padded_size
    points = pillar_points(config.bev, encoder.pillar_points, image_from_bev.device)
    looks = int((camera_view(project_pillars(points, image_from_bev, (height, width), None)).share > 0).sum())
    in_cameras = looks * encoder.image_levels * encoder.image_points
    in_grid = 2 * len(points) * encoder.grid_points
    return encoder.layers * (in_cameras + in_grid) * _sample_flops(config.channels, encoder.heads)


def _decoder_samples(config: ModelConfig) -> int:
    decoder = config.decoder
    proposals = config.proposals.count if config.two_stage and config.proposals else 0
    points = (decoder.queries + proposals) * decoder.points
    return decoder.layers * points * _sample_flops(config.channels, decoder.heads)


def _sample_flops(channels: int, heads: int) -> int:
    """Of one point in every head."""
    return _SAMPLE_FLOPS_PER_CHANNEL * channels + _SAMPLE_FLOPS_OF_POSITION * heads
