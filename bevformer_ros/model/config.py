"""The network's configuration, read from config/models; its defaults are those of the released models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bevformer_ros.taxonomy import CLASSES

QueryContent = Literal["learned", "enriched"]


@dataclass(frozen=True)
class PerspectiveHeadConfig:
    """The monocular 3D head (DD3D style, one prediction per class and feature map location)."""

    strides: tuple[int, ...] = (8, 16, 32, 64, 128)
    """Of the feature maps, finest first."""
    tower_depth: int = 4
    """3x3 convolutions before the predictors."""
    depth_means: tuple[float, ...] = (44.921, 20.252, 11.712, 7.166, 8.548)
    """Metres, per level, of training objects; the learned depth offset starts there."""
    depth_deviations: tuple[float, ...] = (24.331, 9.833, 6.223, 4.611, 8.275)
    """Metres, per level, of training objects; the learned depth scale starts there."""
    depth_range: tuple[float, float] = (0.1, 80.0)
    """Metres, to which depth is clamped."""
    reference_focal_length: float = 500.0
    """Pixels. Depth is predicted as seen by a camera whose inverse focal lengths (1/fx, 1/fy) have the norm 1 / this,
    and scaled for the actual one."""
    canonical_sizes: tuple[tuple[float, float, float], ...] = tuple(entry.canonical_size for entry in CLASSES)
    """Length, width, height in metres, per class."""
    camera_cues: bool = False
    """Whether depth is corrected by what the viewing ray, the ground contact and the apparent height of a location's
    own 2D box tell; the released models know nothing of it."""

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
    """From the perspective head's feature maps to at most `count` boxes in the BEV frame."""

    first_level: int = 0
    """Finest feature map that is used; 1 leaves out stride 8, the costliest."""
    score_threshold: float = 0.05
    """A location counts for a class if its class score exceeds this."""
    threshold_with_centerness: bool = True
    """Whether that class score is multiplied by the centerness first."""
    candidates_per_level: int = 200
    """Best locations of an image and level that are kept for non-maximum suppression."""
    image_nms_iou: float = 0.85
    """A box is dropped if its overlap with a better one of its class and image exceeds this. DD3D has 0.75, but
    neighbours in a row of barriers overlap by 0.78 in the real test frame."""
    boxes_per_image: int = 50
    """Best boxes of an image that are kept after suppression."""
    minimum_score: float = 0.05
    """Of a proposal: 2D score times 3D confidence."""
    bev_nms_margin: float = 0.2
    """Metres. Of two proposals of one class the weaker is dropped if its centre lies in the stronger one's footprint,
    grown by this on every side."""
    bev_nms_iou: float | None = None
    """The weaker is dropped where the footprints' overlap exceeds this instead (0.3 in the paper)."""
    merge_margin: float | None = None
    """Metres. Before that, each box moves to the mean of the boxes of its class in its footprint grown by this,
    weighted by the square of their scores: neighbouring locations err in depth each in its own way."""
    count: int = 100
    """Most proposals of a frame."""
    query_content: QueryContent = "enriched"
    """What a proposal query carries into the decoder: one learned embedding, or that enriched by class, score, size and
    heading."""
    residual: bool = False
    """The decoder starts from the proposal itself, its score and its box, to which each layer adds. The paper's decoder
    starts from the centre alone."""
    on_bev_map: bool = False
    """Proposals are written into the BEV map of their frame too, and so reach later frames with the history. Needs
    temporal.mode warp."""
    join_scores: bool = False
    """A box of a proposal query is reported with the geometric mean of the proposal's score and the decoder's."""

    def __post_init__(self) -> None:
        for name in ("score_threshold", "image_nms_iou", "minimum_score"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in 0..1, got {getattr(self, name)}")
        for name in ("candidates_per_level", "boxes_per_image", "count"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.bev_nms_iou is not None and not 0 <= self.bev_nms_iou <= 1:
            raise ValueError(f"bev_nms_iou must lie in 0..1 or be null, got {self.bev_nms_iou}")
        if self.first_level < 0:
            raise ValueError(f"first_level must be 0 or more, got {self.first_level}")
        if self.bev_nms_margin < 0:
            raise ValueError(f"bev_nms_margin must be 0 or more metres, got {self.bev_nms_margin}")
        if self.merge_margin is not None and self.merge_margin < 0:
            raise ValueError(f"merge_margin must be 0 or more metres or null, got {self.merge_margin}")


def _require_positive(config: object, *names: str) -> None:
    for name in names:
        if getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(config, name)}")


def _round_up(value: int, divisor: int) -> int:
    return -(-value // divisor) * divisor


@dataclass(frozen=True)
class ImageConfig:
    """From a camera's image to the network's input: crop, resize to a height, normalise, pad at the right and
    bottom."""

    source_size: tuple[int, int] = (1600, 900)
    """Width and height in pixels that the crop is given for."""
    crop: tuple[int, int, int, int] = (0, 260, 1600, 900)
    """Left, top, right, bottom in pixels of the source size."""
    height: int = 640
    """Pixels, after the resize; the width follows."""
    mean: tuple[float, float, float] = (103.53, 116.28, 123.675)
    """BGR, taken off every pixel."""
    deviation: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """BGR, by which every pixel is divided after that."""
    pad_divisor: int = 32
    """Width and height are padded to multiples of it."""

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
    """ResNet."""

    depth: Literal[18, 34, 50, 101, 152] = 50
    """Layers, which name the variant."""
    base_channels: int = 64
    """Of the stem; the stages have 1, 2, 4 and 8 times as many (times 4 with bottlenecks)."""

    def __post_init__(self) -> None:
        _require_positive(self, "base_channels")


@dataclass(frozen=True)
class TimmConfig:
    """A backbone of timm, any that has feature maps at strides 8, 16 and 32. timm must be installed."""

    name: str
    """As timm has it, with or without the tag that names weights (swin_tiny_patch4_window7_224.ms_in1k)."""
    pretrained: bool = False
    """Whether learning starts from timm's weights of that name, see timm_backbone.load_pretrained."""


@dataclass(frozen=True)
class BevGridConfig:
    """The BEV map."""

    rows: int = 200
    """Cells along y (forward)."""
    columns: int = 200
    """Cells along x (right)."""
    range: tuple[float, float, float, float, float, float] = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)
    """Minima of x, y, z, then their maxima, in metres of the BEV frame."""

    def __post_init__(self) -> None:
        _require_positive(self, "rows", "columns")
        if any(low >= high for low, high in zip(self.range[:3], self.range[3:], strict=True)):
            raise ValueError(f"range must hold three minima, then three larger maxima, got {self.range}")
        if self.range[5] - self.range[2] <= 1:
            raise ValueError(f"range must be more than 1 m high for the pillar points, got {self.range}")


@dataclass(frozen=True)
class EncoderConfig:
    """The BEV encoder."""

    layers: int = 6
    """Encoder layers."""
    heads: int = 8
    """Attention heads."""
    hidden_channels: int = 512
    """Of the feed-forward part."""
    image_levels: int = 4
    """Feature maps that are used, finest first."""
    pillar_points: int = 4
    """Heights per cell."""
    image_points: int = 8
    """Sampled per head and level in a camera, shared out over the pillar points."""
    grid_points: int = 4
    """Sampled per head in each half of the self-attention."""

    def __post_init__(self) -> None:
        names = ("layers", "heads", "hidden_channels", "image_levels", "pillar_points", "image_points", "grid_points")
        _require_positive(self, *names)
        if self.image_points % self.pillar_points:
            raise ValueError(
                f"image_points {self.image_points} must be a multiple of pillar_points {self.pillar_points}"
            )


@dataclass(frozen=True)
class TemporalConfig:
    """What the network sees of the past, and in the offline setting of the future."""

    frames: tuple[int, ...] = (0,)
    """Indices in ascending order: 0 is now, -1 one interval ago, 1 one interval ahead (the paper's offline setting, for
    recordings only)."""
    interval_s: float = 0.5
    """Seconds between frames."""
    mode: Literal["reencode", "warp"] = "reencode"
    """How a past frame gets into today's coordinates: "reencode" its image features with today's queries (how the
    released weights were trained), or "warp" its BEV map (the paper)."""
    channels: int | None = None
    """Of the fusion blocks; None for as many as the stacked maps have."""
    blocks: int = 3
    """Residual blocks of the fusion."""

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
    """The detection decoder."""

    layers: int = 6
    """Decoder layers."""
    heads: int = 8
    """Attention heads."""
    hidden_channels: int = 512
    """Of the feed-forward part."""
    points: int = 4
    """Sampled per head in the BEV map."""
    queries: int = 900
    """Learned queries of a group."""
    groups: int = 1
    """Of group-DETR; more than one only in training."""

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
    """One network. The defaults throughout are those of the released bevformerv2-r50-t1-base."""

    name: str
    """What status messages and logs call it."""
    image: ImageConfig = ImageConfig()
    """From a camera's image to the network's input."""
    cameras: tuple[str, ...] = NUSCENES_CAMERAS
    """Names in the order of the camera embeddings."""
    channels: int = 256
    """Of image features, BEV map and queries."""
    dropout: float = 0.1
    """Probability, in training."""
    backbone: BackboneConfig | TimmConfig = BackboneConfig()
    """Our ResNet, or with a `name` one of timm's."""
    pyramid_levels: int = 5
    """Feature maps of the neck, from stride 8."""
    bev: BevGridConfig = BevGridConfig()
    """The BEV map."""
    encoder: EncoderConfig = EncoderConfig()
    """The BEV encoder."""
    temporal: TemporalConfig = TemporalConfig()
    """What the network sees of the past."""
    decoder: DecoderConfig = DecoderConfig()
    """The detection decoder."""
    perspective: PerspectiveHeadConfig | None = PerspectiveHeadConfig()
    """The monocular 3D head; None for a model without it."""
    proposals: ProposalConfig | None = None
    """How the perspective head's boxes become one set; None to run without them."""
    two_stage: bool = False
    """Whether the decoder takes the proposals; the released models never saw any."""
    score_threshold: float = 0.0
    """Boxes at or below it are not reported."""
    max_detections: int = 300
    """Most boxes of a frame."""

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
        on_bev_map = self.two_stage and self.proposals is not None and self.proposals.on_bev_map
        if on_bev_map and self.temporal.mode != "warp" and len(self.temporal.frames) > 1:
            raise ValueError(
                f"proposals.on_bev_map needs temporal.mode warp, got {self.temporal.mode!r}: a past frame that is "
                "encoded anew has lost its proposals"
            )
        if self.two_stage and self.proposals is None:
            raise ValueError("two_stage needs proposals, but proposals is null; say at least `proposals: {}`")
