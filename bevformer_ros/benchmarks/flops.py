"""How much arithmetic each stage of a network needs for one set of images.

Convolutions and products of matrices are counted by torch while the network runs on the meta device, where tensors
have shapes but no memory; the bilinear sampling by formula. Norms, activations, softmax and the handling of boxes
are left out.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bevformer_ros.model.attention.deformable_attention import DeformableAttention
from bevformer_ros.model.attention.torch_sampling import LevelShapes, View
from bevformer_ros.model.bev_encoder import camera_view, pillar_points, project_pillars
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.model.network import NetworkInputs, build_network

# For each channel of a sample four corners are multiplied and added; its position, corner indices and weights cost
# about as much as four channels more.
_SAMPLE_FLOPS_PER_CHANNEL = 8
_SAMPLE_FLOPS_OF_POSITION = 32


@dataclass(frozen=True)
class StageWork:
    """Operations; a multiplication and an addition are two.

    matrices: of linear layers and of attention among queries. samples: of bilinear sampling.
    """

    convolutions: int
    matrices: int
    samples: int = 0

    @property
    def flops(self) -> int:
        return self.convolutions + self.matrices + self.samples


def count_work(config: ModelConfig, image_from_bev: Tensor) -> dict[str, StageWork]:
    """The work of each stage for one set of images with a full history, in the order in which the stages run.

    image_from_bev: (1, N, 4, 4) on the CPU, to pixels of the padded image: a cell is sampled in the cameras that see
    it. The stage "buffer" is what it costs to encode past frames again.
    """
    work = _convolutions_and_matrices(config)
    work["encoder"] = replace(work["encoder"], samples=_encoder_samples(config, image_from_bev))
    work["decoder"] = replace(work["decoder"], samples=_decoder_samples(config))
    if config.temporal.mode == "reencode":
        past = len(config.temporal.frames) - 1
        work["buffer"] = StageWork(*(past * count for count in astuple(work["encoder"])))
    return work


def _convolutions_and_matrices(config: ModelConfig) -> dict[str, StageWork]:
    work: dict[str, StageWork] = {}
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = build_network(config).eval().requires_grad_(False)
        for module in network.modules():
            if isinstance(module, DeformableAttention):
                module.sample = _only_shape

        def mark(stage: str) -> None:
            by_operator = counter.get_flop_counts()["Global"]
            convolutions = by_operator.get(torch.ops.aten.convolution, 0)
            matrices = sum(by_operator.values()) - convolutions
            work[stage] = StageWork(
                convolutions - sum(done.convolutions for done in work.values()),
                matrices - sum(done.matrices for done in work.values()),
            )

        width, height = config.image.padded_size
        cameras = len(config.cameras)
        images, valid = torch.empty(1, cameras, 3, height, width), torch.ones(1, cameras, dtype=torch.bool)
        matrices = torch.empty(1, cameras, 4, 4)
        network(NetworkInputs(images, valid, matrices[..., :3, :3], matrices, matrices), mark)
    return work


def _only_shape(value: Tensor, level_shapes: LevelShapes, offsets: Tensor, weights: Tensor, view: View) -> Tensor:
    return value.new_empty(*weights.shape[:2], value.shape[-2] * value.shape[-1])


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
