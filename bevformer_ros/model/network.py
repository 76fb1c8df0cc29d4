"""The whole network (paper, figure 2), and the one function that builds it from its configuration.

Shapes: B batch, N cameras, H x W padded image, S cells of all feature levels of a camera, Q = rows x columns cells of
the BEV grid, C channels, T frames.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor, nn

from bevformer_ros.model.bev_encoder import BevEncoder
from bevformer_ros.model.config import ModelConfig, TimmConfig
from bevformer_ros.model.decoder import Decoder, DecoderOutput
from bevformer_ros.model.fpn import FeaturePyramid
from bevformer_ros.model.object_queries import LearnedQueries, ProposalQueries, join_queries, joined_logits
from bevformer_ros.model.perspective_head import PerspectiveHead, PerspectiveLevel
from bevformer_ros.model.proposal_map import ProposalMap
from bevformer_ros.model.proposals import ProposalMaker, Proposals
from bevformer_ros.model.resnet import ResNet
from bevformer_ros.model.temporal_fusion import TemporalFusion
from bevformer_ros.model.timm_backbone import TimmBackbone
from bevformer_ros.stage_clock import Mark, unmarked
from bevformer_ros.taxonomy import CLASSES

_FINEST_STRIDE = 8  # of the image features, in pixels; each level after it has twice as much


class NetworkInputs(NamedTuple):
    """What the network is given of its frames, on its device.

    images: (B, N, 3, H, W) normalised. camera_valid: (B, N), False for a camera without an image. intrinsics:
    (B, N, 3, 3) of the padded image. camera_from_bev: (B, N, 4, 4). image_from_bev: (B, N, 4, 4) to pixels of the
    padded image (official lidar2img).
    """

    images: Tensor
    camera_valid: Tensor
    intrinsics: Tensor
    camera_from_bev: Tensor
    image_from_bev: Tensor


class ImageFeatures(NamedTuple):
    """levels: of the neck, each (B, N, C, h, w), strides 8, 16, ... perspective: what the perspective head says about
    each of the B*N images, level by level. proposals: its boxes in the BEV frame. Both None where nobody needs them.
    """

    levels: tuple[Tensor, ...]
    perspective: list[PerspectiveLevel] | None
    proposals: Proposals | None


class Encoded(NamedTuple):
    """features: of the images, as the BEV encoder reads them, (B, N, S, C), or None. bev: (B, Q, C)."""

    features: Tensor | None
    bev: Tensor
    proposals: Proposals | None


class BEVFormerV2(nn.Module):
    """The stages in their order: backbone, neck, perspective, encoder; [history]; fusion, decoder.

    `encode` runs those before the history and `detect` those after it. Inference, CUDA graphs, training, benchmarks and
    the count of FLOPs all go through these two, and hear of the end of each stage by a Mark.
    """

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
        proposal_map: ProposalMap | None,
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
        self.proposal_map = proposal_map

    def encode(self, inputs: NetworkInputs, seen: Tensor | None = None, mark: Mark = unmarked) -> Encoded:
        """From images to the BEV map of one frame: all that needs no history. seen: as in encode_images."""
        return self.lift(self.encode_images(inputs, seen, mark), inputs, mark)

    def encode_images(
        self,
        inputs: NetworkInputs,
        seen: Tensor | None = None,
        mark: Mark = unmarked,
        every_perspective_level: bool = False,
    ) -> ImageFeatures:
        """The part that knows no BEV grid; training of the perspective head alone ends here.

        seen: (B, N, H, W) bool, False at pixels of which no proposal is to be made; None where all count.
        every_perspective_level: for a loss on all of them; otherwise the perspective head runs only where proposals are
        made, from the finest level that these use.
        """
        levels = self.image_features(inputs.images, mark)
        # Proposals of a one-stage model are for comparison only: training has no use for them.
        maker = None if self.training and not self.config.two_stage else self.proposal_maker
        if self.perspective_head is None or (maker is None and not every_perspective_level):
            return ImageFeatures(levels, None, None)
        finest = 0 if every_perspective_level or maker is None else maker.config.first_level
        perspective = self.perspective_head(
            [level.flatten(0, 1) for level in levels], finest, inputs.intrinsics.flatten(0, 1)
        )
        proposals = None
        if maker is not None:
            used = perspective[maker.config.first_level - finest :]
            proposals = maker(used, inputs.intrinsics, inputs.camera_from_bev, inputs.camera_valid, seen)
        mark("perspective")
        return ImageFeatures(levels, perspective, proposals)

    def image_features(self, images: Tensor, mark: Mark = unmarked) -> tuple[Tensor, ...]:
        """Normalised images (B, N, 3, H, W) -> feature levels (B, N, C, h, w), strides 8, 16, ..."""
        maps = self.backbone(images.flatten(0, 1))
        mark("backbone")
        levels = tuple(level.unflatten(0, images.shape[:2]) for level in self.neck(maps))
        mark("neck")
        return levels

    def lift(self, features: ImageFeatures, inputs: NetworkInputs, mark: Mark = unmarked) -> Encoded:
        """From image features to the BEV map."""
        flat = self.bev_encoder.flatten(features.levels)
        bev = self.encode_bev(flat, inputs.image_from_bev, inputs.camera_valid)
        bev = self.with_proposals(bev, features.proposals)
        mark("encoder")
        return Encoded(flat, bev, features.proposals)

    def with_proposals(self, bev: Tensor, proposals: Proposals | None) -> Tensor:
        """The BEV map (B, Q, C) with the proposals written into it, where the configuration wants that."""
        if self.proposal_map is None or proposals is None:
            return bev
        return bev + self.proposal_map(proposals).to(bev.dtype)

    def encode_bev(self, features: Tensor, image_from_bev: Tensor, camera_valid: Tensor | None) -> Tensor:
        """What BevEncoder.flatten gives (B, N, S, C) -> BEV map (B, Q, C). The other two as in NetworkInputs;
        camera_valid None if all cameras have an image."""
        width, height = self.config.image.padded_size
        strides = (_FINEST_STRIDE << level for level in range(self.config.encoder.image_levels))
        level_shapes = tuple((math.ceil(height / stride), math.ceil(width / stride)) for stride in strides)
        return self.bev_encoder(features, level_shapes, image_from_bev, (height, width), camera_valid)

    def detect(self, bevs: Tensor, proposals: Proposals | None, mark: Mark = unmarked) -> DecoderOutput:
        """From the BEV maps (B, T, Q, C) of all frames to objects: all that comes after the history."""
        bev = self.fuse(bevs)
        mark("fusion")
        output = self.decode(bev, proposals)
        mark("decoder")
        return output

    def fuse(self, bevs: Tensor) -> Tensor:
        """BEV maps (B, T, Q, C) from oldest to newest, in the current frame's coordinates -> (B, Q, C)."""
        return bevs[:, -1] if self.temporal_fusion is None else self.temporal_fusion(bevs)

    def decode(self, bev: Tensor, proposals: Proposals | None = None) -> DecoderOutput:
        """BEV map (B, Q, C) and perspective proposals -> class logits and box codes of every decoder layer.

        A one-stage model makes proposals for comparison only: its decoder does not see them. Scores are joined with
        the proposals' outside training alone: a loss is to see what the decoder says.
        """
        queries = self.queries(len(bev))
        if proposals is None or self.proposal_queries is None:
            return self.decoder(bev, queries)
        output = self.decoder(bev, join_queries(queries, self.proposal_queries(proposals)))
        if self.proposal_queries.join_scores and not self.training:
            return output._replace(class_logits=joined_logits(output.class_logits, proposals))
        return output

    def forward(self, inputs: NetworkInputs, mark: Mark = unmarked) -> DecoderOutput:
        """A single frame; every frame of the history that it lacks repeats it, as in the reference."""
        encoded = self.encode(inputs, mark=mark)
        bevs = self.without_history(encoded.bev)
        mark("buffer")
        return self.detect(bevs, encoded.proposals, mark)

    def without_history(self, bev: Tensor) -> Tensor:
        """BEV map (B, Q, C) -> (B, T, Q, C), the same T times."""
        return bev.unsqueeze(1).expand(-1, len(self.config.temporal.frames), -1, -1)


def build_network(config: ModelConfig) -> BEVFormerV2:
    """The network with random weights, in training mode as any new module."""
    channels, classes = config.channels, len(CLASSES)
    if isinstance(config.backbone, TimmConfig):
        backbone: ResNet | TimmBackbone = TimmBackbone(config.backbone, config.image)
    else:
        backbone = ResNet(config.backbone)
    second_stage = config.proposals if config.two_stage else None
    return BEVFormerV2(
        config,
        backbone,
        FeaturePyramid(backbone.output_channels, channels, config.pyramid_levels),
        BevEncoder(config.encoder, config.bev, len(config.cameras), channels, config.dropout),
        TemporalFusion(config.temporal, config.bev, channels) if len(config.temporal.frames) > 1 else None,
        LearnedQueries(config.decoder.queries, channels, config.decoder.groups),
        Decoder(
            config.decoder,
            config.bev,
            channels,
            classes,
            config.dropout,
            residual=second_stage is not None and second_stage.residual,
        ),
        PerspectiveHead(config.perspective, channels) if config.perspective else None,
        ProposalMaker(config.perspective, config.proposals, config.bev.range)
        if config.perspective and config.proposals
        else None,
        ProposalQueries(channels, classes, second_stage, config.bev.range) if second_stage else None,
        ProposalMap(channels, classes, config.bev) if second_stage and second_stage.on_bev_map else None,
    )
