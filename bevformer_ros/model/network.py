"""The whole network (paper, figure 2), and the one function that builds it from its configuration.

Shapes: B batch, N cameras, H x W padded image, Q = rows x columns cells of the BEV grid, C channels, T frames.
"""

from __future__ import annotations

from torch import Tensor, nn

from bevformer_ros.model.bev_encoder import BevEncoder
from bevformer_ros.model.config import ModelConfig, TimmConfig
from bevformer_ros.model.decoder import Decoder, DecoderOutput
from bevformer_ros.model.fpn import FeaturePyramid
from bevformer_ros.model.object_queries import LearnedQueries, ProposalQueries, join_queries
from bevformer_ros.model.perspective_head import PerspectiveHead, PerspectiveLevel
from bevformer_ros.model.proposals import ProposalMaker, Proposals
from bevformer_ros.model.resnet import ResNet
from bevformer_ros.model.temporal_fusion import TemporalFusion
from bevformer_ros.model.timm_backbone import TimmBackbone
from bevformer_ros.taxonomy import CLASSES


class BEVFormerV2(nn.Module):
    """Each method is one stage, usable and timeable alone; `forward` runs them for a single frame."""

    def __init__(
        self,
        config: ModelConfig,
        backbone: ResNet | TimmBackbone,
        neck: FeaturePyramid,
        bev_encoder: BevEncoder,
        temporal_fusion: TemporalFusion | None,
        queries: LearnedQueries,
        decoder: Decoder,
        perspective_head: PerspectiveHead | None,
        proposal_maker: ProposalMaker | None,
        proposal_queries: ProposalQueries | None,
    ) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.neck = neck
        self.bev_encoder = bev_encoder
        self.temporal_fusion = temporal_fusion
        self.queries = queries
        self.decoder = decoder
        self.perspective_head = perspective_head
        self.proposal_maker = proposal_maker
        self.proposal_queries = proposal_queries

    def image_features(self, images: Tensor) -> tuple[Tensor, ...]:
        """Normalised images (B, N, 3, H, W) -> feature levels (B, N, C, h, w), strides 8, 16, ..."""
        batch = images.shape[:2]
        levels = self.neck(self.backbone(images.flatten(0, 1)))
        return tuple(level.unflatten(0, batch) for level in levels)

    def propose(
        self,
        features: tuple[Tensor, ...],
        intrinsics: Tensor,
        camera_from_bev: Tensor,
        camera_valid: Tensor | None = None,
    ) -> Proposals | None:
        """Perspective boxes in the BEV frame, or None for a model that is configured without proposals.

        intrinsics: (B, N, 3, 3) of the padded image. camera_from_bev: (B, N, 4, 4). camera_valid: (B, N).
        """
        if self.perspective_head is None or self.proposal_maker is None:
            return None
        levels = self.perspective_levels(features, self.proposal_maker.config.first_level)
        return self.proposal_maker(levels, intrinsics, camera_from_bev, camera_valid)

    def perspective_levels(self, features: tuple[Tensor, ...], first_level: int = 0) -> list[PerspectiveLevel]:
        """What the perspective head says about each of the B*N images, level by level from first_level on."""
        assert self.perspective_head is not None
        return self.perspective_head([level.flatten(0, 1) for level in features], first_level)

    def encode_bev(
        self,
        features: tuple[Tensor, ...],
        image_from_bev: Tensor,
        camera_valid: Tensor | None,
        image_size: tuple[int, int],
    ) -> Tensor:
        """Feature levels -> BEV map (B, Q, C).

        image_from_bev: (B, N, 4, 4) to pixels of the padded image (official lidar2img). camera_valid: (B, N), False
        for a camera without an image; None if all have one. image_size: (H, W).
        """
        return self.bev_encoder(features, image_from_bev, image_size, camera_valid)

    def fuse(self, bevs: Tensor) -> Tensor:
        """BEV maps (B, T, Q, C) from oldest to newest, in the newest frame's coordinates -> (B, Q, C)."""
        if self.temporal_fusion is None:
            return bevs[:, -1]
        return self.temporal_fusion(bevs)

    def decode(self, bev: Tensor, proposals: Proposals | None = None) -> DecoderOutput:
        """BEV map (B, Q, C) and perspective proposals -> class logits and box codes of every decoder layer.

        A one-stage model makes proposals for comparison only: its decoder does not see them.
        """
        queries = self.queries(len(bev))
        if proposals is not None and self.proposal_queries is not None:
            queries = join_queries(queries, self.proposal_queries(proposals))
        return self.decoder(bev, queries)

    def forward(
        self,
        images: Tensor,
        image_from_bev: Tensor,
        intrinsics: Tensor | None = None,
        camera_from_bev: Tensor | None = None,
        camera_valid: Tensor | None = None,
    ) -> DecoderOutput:
        """A single frame; every missing past frame repeats it, as in the reference.

        intrinsics and camera_from_bev are needed only by a two-stage model.
        """
        features = self.image_features(images)
        proposals = None
        if self.config.two_stage:
            if intrinsics is None or camera_from_bev is None:
                raise ValueError(f"model {self.config.name} is two-stage and needs intrinsics and camera_from_bev")
            proposals = self.propose(features, intrinsics, camera_from_bev, camera_valid)
        bev = self.encode_bev(features, image_from_bev, camera_valid, (images.shape[-2], images.shape[-1]))
        frames = len(self.config.temporal.frames)
        return self.decode(self.fuse(bev.unsqueeze(1).expand(-1, frames, -1, -1)), proposals)


def build_network(config: ModelConfig) -> BEVFormerV2:
    """The network with random weights, in training mode as any new module."""
    channels, classes = config.channels, len(CLASSES)
    if isinstance(config.backbone, TimmConfig):
        backbone: ResNet | TimmBackbone = TimmBackbone(config.backbone, config.image)
    else:
        backbone = ResNet(config.backbone)
    return BEVFormerV2(
        config,
        backbone,
        FeaturePyramid(backbone.output_channels, channels, config.pyramid_levels),
        BevEncoder(config.encoder, config.bev, len(config.cameras), channels, config.dropout),
        TemporalFusion(config.temporal, config.bev, channels) if len(config.temporal.frames) > 1 else None,
        LearnedQueries(config.decoder.queries, channels, config.decoder.groups),
        Decoder(config.decoder, config.bev, channels, classes, config.dropout),
        PerspectiveHead(config.perspective, channels) if config.perspective else None,
        ProposalMaker(config.perspective, config.proposals, config.bev.range)
        if config.perspective and config.proposals
        else None,
        ProposalQueries(channels, classes, config.proposals.query_content, config.bev.range)
        if config.proposals and config.two_stage
        else None,
    )
