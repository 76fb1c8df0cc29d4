"""One training step: the network as it runs, with its history, and the losses on what came out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bevformer_ros.inference.bev_buffer import BevBuffer, EncodedFrame
from bevformer_ros.inference.history import HistoryConfig
from bevformer_ros.model.config import BackboneConfig
from bevformer_ros.model.network import BEVFormerV2, Encoded, ImageFeatures, NetworkInputs
from bevformer_ros.training.batch import Batch
from bevformer_ros.training.bev_loss import bev_loss
from bevformer_ros.training.config import TrainingConfig
from bevformer_ros.training.kept_encodings import Encoding, KeptEncodings
from bevformer_ros.training.perspective_loss import perspective_loss

_NARROWEST = 8


class Step(NamedTuple):
    """losses: weighted scalars by name; their sum is what is minimised. encoded: one entry per sample, to be stored
    once the gradients are taken."""

    losses: dict[str, Tensor]
    encoded: tuple[EncodedFrame, ...]


class NetworkWithLosses(nn.Module):
    """The network with its losses, as DistributedDataParallel wants it: one forward pass, all gradients."""

    def __init__(self, network: BEVFormerV2, config: TrainingConfig, encodings: KeptEncodings | None = None) -> None:
        """Freezes what the configuration names, and what its losses do not reach. encodings: of other networks with the
        same frozen parts, where the configuration keeps them. Raises ValueError where a loss has no head to teach, and
        for a name that is no part of the network."""
        super().__init__()
        self.network = network
        self._bev, self._perspective = config.bev, config.perspective
        model = network.config
        if isinstance(model.backbone, BackboneConfig) and model.backbone.base_channels < _NARROWEST:
            raise ValueError(
                f"model {model.name}: backbone.base_channels {model.backbone.base_channels}, training needs at least "
                f"{_NARROWEST}: oneDNN's AVX2 kernel for narrower strided convolutions ends the process"
            )
        if config.perspective is not None and model.perspective is None:
            raise ValueError(f"model {model.name} has no perspective head, set perspective to null for its training")
        if config.perspective is not None and model.perspective is not None:
            levels, ranges = len(model.perspective.strides), len(config.perspective.size_ranges)
            if levels != ranges:
                raise ValueError(f"perspective.size_ranges has {ranges} entries, model {model.name} {levels} levels")
        if config.keep_encodings and model.temporal.mode != "warp" and len(model.temporal.frames) > 1:
            raise ValueError(
                f"keep_encodings needs temporal.mode warp, got {model.temporal.mode!r}: a past frame is encoded anew"
            )
        self._kept = (KeptEncodings() if encodings is None else encodings) if config.keep_encodings else None
        self._frozen = [_part(network, name) for name in config.frozen]
        for frozen in self._frozen:
            frozen.requires_grad_(False)
        if config.perspective is None and network.perspective_head is not None:
            network.perspective_head.requires_grad_(False)
        if config.bev is None:
            of_bev = (network.bev_encoder, network.temporal_fusion, network.decoder, network.queries)
            for part in (*of_bev, network.proposal_queries, network.proposal_map):
                if part is not None:
                    part.requires_grad_(False)

    def train(self, mode: bool = True) -> NetworkWithLosses:
        """Frozen parts stay as they run on a car: their batch norms learn nothing either."""
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    def empty_buffers(self, count: int) -> list[BevBuffer]:
        """One history for each drive that is trained on side by side."""
        config = self.network.config
        return [BevBuffer(config.temporal, HistoryConfig(), config.bev, self._encode_past) for _ in range(count)]

    @torch.no_grad()
    def _encode_past(self, features: Tensor, image_from_bev: Tensor, camera_valid: Tensor) -> Tensor:
        return self.network.encode_bev(features, image_from_bev, camera_valid)

    def forward(self, batch: Batch, buffers: Sequence[BevBuffer]) -> Step:
        """The history in the buffers is used as it is: gradients end there."""
        network, losses = self.network, {}
        if self._kept is not None:
            encoding = self._kept(batch.inputs, self._encode_frozen)
            encoded = Encoded(None, network.with_proposals(*encoding), encoding.proposals)
        else:
            features = network.encode_images(batch.inputs, every_perspective_level=self._perspective is not None)
            if self._perspective is not None:
                losses.update(self._perspective_losses(features, batch))
            if self._bev is None:
                return Step(losses, ())
            if features.proposals is not None:
                features = features._replace(proposals=features.proposals.scaled(batch.scales))
            encoded = network.lift(features, batch.inputs)
        assert self._bev is not None
        entries = _split(batch, encoded)
        bevs = [
            buffer.align(entry.bev, buffer.recall(entry).past) for buffer, entry in zip(buffers, entries, strict=True)
        ]
        output = network.detect(torch.cat(bevs), encoded.proposals)
        set_loss = bev_loss(output, batch.bev_truth, self._bev, network.config.decoder.groups)
        losses.update(bev_classes=set_loss.classes.sum(), bev_boxes=set_loss.boxes.sum())
        return Step(losses, tuple(_detached(entry) for entry in entries))

    def _perspective_losses(self, features: ImageFeatures, batch: Batch) -> dict[str, Tensor]:
        model = self.network.config.perspective
        assert features.perspective is not None and model is not None and self._perspective is not None
        intrinsics = batch.inputs.intrinsics.flatten(0, 1)
        loss = perspective_loss(features.perspective, batch.perspective_truth, intrinsics, model, self._perspective)
        return {f"perspective_{name}": value for name, value in loss._asdict().items()}

    def _encode_frozen(self, inputs: NetworkInputs) -> Encoding:
        """As the network runs on a car, thus with the proposals of a one-stage model, which others may share."""
        network = self.network.eval()
        features = network.encode_images(inputs)
        flat = network.bev_encoder.flatten(features.levels)
        bev = network.encode_bev(flat, inputs.image_from_bev, inputs.camera_valid)
        self.train()
        return Encoding(bev, features.proposals)


def _part(network: nn.Module, name: str) -> nn.Module:
    try:
        return network.get_submodule(name)
    except AttributeError as error:
        parts = ", ".join(child for child, _ in network.named_children())
        raise ValueError(f"frozen names {name!r}, which is no part of the network; there are {parts}") from error


def _split(batch: Batch, encoded: Encoded) -> list[EncodedFrame]:
    return [
        EncodedFrame(
            stamp_ns,
            pose,
            encoded.bev[row : row + 1],
            None if encoded.features is None else encoded.features[row : row + 1],
            batch.projections[row],
            batch.inputs.camera_valid[row : row + 1],
        )
        for row, (stamp_ns, pose) in enumerate(zip(batch.stamps_ns, batch.poses, strict=True))
    ]


def _detached(entry: EncodedFrame) -> EncodedFrame:
    features = None if entry.features is None else entry.features.detach()
    return replace(entry, bev=entry.bev.detach(), features=features)
