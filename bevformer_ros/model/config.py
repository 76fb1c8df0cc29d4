"""The network's configuration, read from config/models; its defaults are those of the released models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bevformer_ros.taxonomy import CLASSES

QueryContent = Literal["learned", "enriched"]


@dataclass(frozen=True)
class PerspectiveHeadConfig:
    """The monocular 3D head (DD3D style, one prediction per class and feature map location).

    strides: of the feature maps, finest first. tower_depth: 3x3 convolutions before the predictors.
    depth_means, depth_deviations: metres, per level, of training objects; the learned depth scale and offset start
    there. depth_range: metres, to which depth is clamped. reference_focal_length: pixels; depth is predicted as seen
    by a camera whose inverse focal lengths (1/fx, 1/fy) have the norm 1 / this, and scaled for the actual one.
    canonical_sizes: length, width, height per class.
    """

    strides: tuple[int, ...] = (8, 16, 32, 64, 128)
    tower_depth: int = 4
    depth_means: tuple[float, ...] = (44.921, 20.252, 11.712, 7.166, 8.548)
    depth_deviations: tuple[float, ...] = (24.331, 9.833, 6.223, 4.611, 8.275)
    depth_range: tuple[float, float] = (0.1, 80.0)
    reference_focal_length: float = 500.0
    canonical_sizes: tuple[tuple[float, float, float], ...] = tuple(entry.canonical_size for entry in CLASSES)

    def __post_init__(self) -> None:
        levels = len(self.strides)
        if levels == 0 or len(self.depth_means) != levels or len(self.depth_deviations) != levels:
            raise ValueError(
                f"strides, depth_means and depth_deviations must have one entry per level, got {levels}, "
                f"{len(self.depth_means)} and {len(self.depth_deviations)}"
            )
        if self.tower_depth < 1:
            raise ValueError(f"tower_depth must be at least 1, got {self.tower_depth}")
        if not 0 < self.depth_range[0] < self.depth_range[1]:
            raise ValueError(f"depth_range must be positive and ascending, got {self.depth_range}")
        if self.reference_focal_length <= 0:
            raise ValueError(f"reference_focal_length must be positive, got {self.reference_focal_length}")
        if not self.canonical_sizes or min(min(size) for size in self.canonical_sizes) <= 0:
            raise ValueError(f"canonical_sizes must be one positive triple per class, got {self.canonical_sizes}")


@dataclass(frozen=True)
class ProposalConfig:
    """From the perspective head's feature maps to at most `count` boxes in the BEV frame.

    first_level: finest feature map that is used; 1 leaves out stride 8, the costliest. score_threshold: a location
    counts for a class if its class score (times centerness if threshold_with_centerness) exceeds it.
    candidates_per_level: best such locations of an image kept for non-maximum suppression, which drops a box whose
    overlap with a better one of its class exceeds image_nms_iou (DD3D has 0.75, but neighbours in a row of barriers
    overlap by 0.78 in the real test frame). boxes_per_image: best of the rest that are kept.
    minimum_score: of a proposal (2D score times 3D confidence). bev_nms_margin: metres; of two proposals of one class
    the weaker is dropped if its centre lies in the stronger one's footprint, grown by this on every side.
    query_content: what a proposal query carries into the decoder.
    """

    first_level: int = 0
    score_threshold: float = 0.05
    threshold_with_centerness: bool = True
    candidates_per_level: int = 200
    image_nms_iou: float = 0.85
    boxes_per_image: int = 50
    minimum_score: float = 0.05
    bev_nms_margin: float = 0.2
    count: int = 100
    query_content: QueryContent = "enriched"

    def __post_init__(self) -> None:
        for name in ("score_threshold", "image_nms_iou", "minimum_score"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in 0..1, got {getattr(self, name)}")
        for name in ("candidates_per_level", "boxes_per_image", "count"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.first_level < 0:
            raise ValueError(f"first_level must be 0 or more, got {self.first_level}")
        if self.bev_nms_margin < 0:
            raise ValueError(f"bev_nms_margin must be 0 or more metres, got {self.bev_nms_margin}")


def _require_positive(config: object, *names: str) -> None:
    for name in names:
        if getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(config, name)}")


def _round_up(value: int, divisor: int) -> int:
    return -(-value // divisor) * divisor


@dataclass(frozen=True)
class ImageConfig:
    """From a camera's image to the network's input: crop, resize to a height, normalise, pad at the right and bottom.

    source_size: width, height that the crop is given for. crop: left, top, right, bottom in its pixels. height: after
    the resize; the width follows. mean, deviation: BGR. pad_divisor: of both sides.
    """

    source_size: tuple[int, int] = (1600, 900)
    crop: tuple[int, int, int, int] = (0, 260, 1600, 900)
    height: int = 640
    mean: tuple[float, float, float] = (103.53, 116.28, 123.675)
    deviation: tuple[float, float, float] = (1.0, 1.0, 1.0)
    pad_divisor: int = 32

    def __post_init__(self) -> None:
        left, top, right, bottom = self.crop
        width, height = self.source_size
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise ValueError(f"crop {self.crop} does not lie inside source_size {self.source_size}")
        _require_positive(self, "height", "pad_divisor")
        if min(self.deviation) <= 0:
            raise ValueError(f"deviation must be positive, got {self.deviation}")

    @property
    def padded_size(self) -> tuple[int, int]:
        """Width, height of the network's input."""
        left, top, right, bottom = self.crop
        width = self.height * (right - left) // (bottom - top)
        return _round_up(width, self.pad_divisor), _round_up(self.height, self.pad_divisor)


@dataclass(frozen=True)
class BackboneConfig:
    """ResNet. base_channels: of the stem; the stages have 1, 2, 4 and 8 times as many (times 4 with bottlenecks)."""

    depth: Literal[18, 34, 50, 101, 152] = 50
    base_channels: int = 64

    def __post_init__(self) -> None:
        _require_positive(self, "base_channels")


@dataclass(frozen=True)
class TimmConfig:
    """A backbone of timm, any that has feature maps at strides 8, 16 and 32. timm must be installed.

    name: as timm has it, with or without the tag that names weights (swin_tiny_patch4_window7_224.ms_in1k).
    pretrained: learning starts from timm's weights of that name, see timm_backbone.load_pretrained.
    """

    name: str
    pretrained: bool = False


@dataclass(frozen=True)
class BevGridConfig:
    """The BEV map. rows: along y (forward). columns: along x (right). range: x, y, z minima then maxima, metres."""

    rows: int = 200
    columns: int = 200
    range: tuple[float, float, float, float, float, float] = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)

    def __post_init__(self) -> None:
        _require_positive(self, "rows", "columns")
        if any(low >= high for low, high in zip(self.range[:3], self.range[3:], strict=True)):
            raise ValueError(f"range must hold three minima, then three larger maxima, got {self.range}")
        if self.range[5] - self.range[2] <= 1:
            raise ValueError(f"range must be more than 1 m high for the pillar points, got {self.range}")


@dataclass(frozen=True)
class EncoderConfig:
    """BEV encoder. image_levels: feature maps used, finest first. pillar_points: heights per cell.

    image_points: sampled per head and level in a camera, shared out over the pillar points. grid_points: sampled per
    head in each half of the self-attention. hidden_channels: of the feed-forward part.
    """

    layers: int = 6
    heads: int = 8
    hidden_channels: int = 512
    image_levels: int = 4
    pillar_points: int = 4
    image_points: int = 8
    grid_points: int = 4

    def __post_init__(self) -> None:
        names = ("layers", "heads", "hidden_channels", "image_levels", "pillar_points", "image_points", "grid_points")
        _require_positive(self, *names)
        if self.image_points % self.pillar_points:
            raise ValueError(
                f"image_points {self.image_points} must be a multiple of pillar_points {self.pillar_points}"
            )


@dataclass(frozen=True)
class TemporalConfig:
    """History. frames: indices in ascending order; 0 is now, -1 one interval ago, 1 one interval ahead (the paper's
    offline setting: recordings only). interval_s: seconds between them.

    mode: how a past frame gets into today's coordinates: "reencode" its image features with today's queries (how the
    released weights were trained), or "warp" its BEV map (the paper). channels: of the fusion blocks, None for as
    many as the stacked maps have. blocks: residual blocks.
    """

    frames: tuple[int, ...] = (0,)
    interval_s: float = 0.5
    mode: Literal["reencode", "warp"] = "reencode"
    channels: int | None = None
    blocks: int = 3

    def __post_init__(self) -> None:
        if 0 not in self.frames or list(self.frames) != sorted(set(self.frames)):
            raise ValueError(f"frames must ascend and contain 0 (now), got {self.frames}")
        if self.interval_s <= 0:
            raise ValueError(f"interval_s must be positive seconds, got {self.interval_s}")
        if self.channels is not None:
            _require_positive(self, "channels")
        _require_positive(self, "blocks")


@dataclass(frozen=True)
class DecoderConfig:
    """Detection decoder. queries: learned ones of a group. groups: of group-DETR, more than one only in training.

    points: sampled per head in the BEV map. hidden_channels: of the feed-forward part.
    """

    layers: int = 6
    heads: int = 8
    hidden_channels: int = 512
    points: int = 4
    queries: int = 900
    groups: int = 1

    def __post_init__(self) -> None:
        _require_positive(self, "layers", "heads", "hidden_channels", "points", "queries", "groups")


NUSCENES_CAMERAS = (
    "CAM_FRONT",
    "CAM_FRONT_RIGHT",
    "CAM_FRONT_LEFT",
    "CAM_BACK",
    "CAM_BACK_LEFT",
    "CAM_BACK_RIGHT",
)


@dataclass(frozen=True)
class ModelConfig:
    """One network. The defaults throughout are those of the released bevformerv2-r50-t1-base.

    cameras: names in the order of the camera embeddings. channels: of image features, BEV map and queries.
    backbone: our ResNet, or with a `name` one of timm's. pyramid_levels: feature maps of the neck, from stride 8.
    perspective: None for a model without that head. proposals: how the perspective head's boxes become one set; None
    to run without them. two_stage: whether the decoder takes the proposals; the released models never saw any.
    score_threshold: boxes at or below it are not reported. max_detections: most boxes of a frame.
    """

    name: str
    image: ImageConfig = ImageConfig()
    cameras: tuple[str, ...] = NUSCENES_CAMERAS
    channels: int = 256
    dropout: float = 0.1
    backbone: BackboneConfig | TimmConfig = BackboneConfig()
    pyramid_levels: int = 5
    bev: BevGridConfig = BevGridConfig()
    encoder: EncoderConfig = EncoderConfig()
    temporal: TemporalConfig = TemporalConfig()
    decoder: DecoderConfig = DecoderConfig()
    perspective: PerspectiveHeadConfig | None = PerspectiveHeadConfig()
    proposals: ProposalConfig | None = None
    two_stage: bool = False
    score_threshold: float = 0.0
    max_detections: int = 300

    def __post_init__(self) -> None:
        if not self.cameras or len(set(self.cameras)) != len(self.cameras):
            raise ValueError(f"cameras must be at least one distinct name, got {self.cameras}")
        _require_positive(self, "channels", "max_detections")
        for heads in (self.encoder.heads, self.decoder.heads):
            if self.channels % heads:
                raise ValueError(f"channels {self.channels} must be a multiple of the {heads} heads")
        if self.channels % 2:
            raise ValueError(f"channels must be even (half of a position tells the column), got {self.channels}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in 0..1, got {self.dropout}")
        if not 3 <= self.encoder.image_levels <= self.pyramid_levels:
            raise ValueError(
                f"encoder.image_levels {self.encoder.image_levels} must lie in 3..pyramid_levels {self.pyramid_levels}"
            )
        if not 0 <= self.score_threshold < 1:
            raise ValueError(f"score_threshold must lie in 0..1, got {self.score_threshold}")
        if self.max_detections > self.decoder.queries * len(CLASSES):
            raise ValueError(
                f"max_detections {self.max_detections} is more than {self.decoder.queries} queries x "
                f"{len(CLASSES)} classes"
            )
        if self.perspective is not None and len(self.perspective.strides) != self.pyramid_levels:
            raise ValueError(f"perspective.strides must have pyramid_levels = {self.pyramid_levels} entries")
        if self.proposals is not None and self.perspective is None:
            raise ValueError("proposals need a perspective head, but perspective is null")
        if self.perspective and self.proposals and self.proposals.first_level >= len(self.perspective.strides):
            raise ValueError(
                f"proposals.first_level {self.proposals.first_level} leaves none of the "
                f"{len(self.perspective.strides)} levels"
            )
        if self.two_stage and self.proposals is None:
            raise ValueError("two_stage needs proposals, but proposals is null; say at least `proposals: {}`")
