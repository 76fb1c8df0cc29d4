"""What a training run is made of; the defaults of the losses are those of the released models."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bevformer_ros.inference.choices import PrecisionChoice
from bevformer_ros.model.box_coding import BOX_CODE_SIZE
from bevformer_ros.simulation.sensor import PERFECT, SensorConfig

ENCODING_PARTS = ("backbone", "neck", "perspective_head", "bev_encoder")


@dataclass(frozen=True)
class FocalConfig:
    """Sigmoid focal loss (Lin et al. 2017)."""

    alpha: float = 0.25
    """Weight of the positives, in 0..1."""
    gamma: float = 2.0
    """How far what is already right is played down."""

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1 or self.gamma < 0:
            raise ValueError(f"alpha must lie in 0..1 and gamma be 0 or more, got {self.alpha} and {self.gamma}")


@dataclass(frozen=True)
class BevLossConfig:
    """Set loss of the decoder; the weights count for matching as well."""

    focal: FocalConfig = FocalConfig()
    """Focal loss of the classes."""
    class_weight: float = 2.0
    """Weight of the classes."""
    box_weight: float = 0.75
    """Weight of the boxes."""
    quality_distance: float | None = None
    """Metres: the class target of a matched query is exp(-distance / this) of its box's centre on the ground instead of
    1, so that scores learn to tell how well a box is placed (quality focal loss, Li et al. 2020)."""
    proposal_radius: float | None = None
    """Metres: a proposal's query is matched with no object farther than this from its box; what the first stage missed
    is left to the learned queries. Null, as in the released models, matches every object with some query."""
    learned_radius: float | None = None
    """Metres: the same for a learned query. What neither reaches then teaches nobody; else an object that nothing shows
    drags some query through the whole range, and such errors drown those of the boxes that are nearly right."""
    box_beta: float = 1.0
    """Where the smooth L1 of the boxes turns from square to linear."""
    code_weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2)
    """Per number of the box code (x, y, log width, log length, z, log height, sine, cosine, velocity x, y), in the loss
    but not in the matching."""

    def __post_init__(self) -> None:
        if len(self.code_weights) != BOX_CODE_SIZE:
            raise ValueError(f"code_weights must have {BOX_CODE_SIZE} entries, got {len(self.code_weights)}")
        if self.box_beta <= 0:
            raise ValueError(f"box_beta must be positive, got {self.box_beta}")
        for name in ("quality_distance", "proposal_radius", "learned_radius"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive metres or null, got {value}")


@dataclass(frozen=True)
class PerspectiveLossConfig:
    """Dense loss of the perspective head (DD3D, Park et al. 2021)."""

    focal: FocalConfig = FocalConfig()
    """Focal loss of the classes."""
    size_ranges: tuple[tuple[float, float], ...] = ((-1, 64), (64, 128), (128, 256), (256, 512), (512, math.inf))
    """Pixels, per level, finest first: a location learns an object if the farthest side of its 2D box lies at a
    distance in this range."""
    center_radius: float = 1.5
    """Strides: half the square around the 2D centre that learns."""
    boxes2d_weight: float = 1.0
    """Weight of the overlap of 2D boxes."""
    sides_weight: float = 0.0
    """Weight of the mean distance in pixels of a 2D box's four sides; the released models learned them by overlap
    alone."""
    rotation_weight: float = 2.0
    """Weight of the rotation."""
    center_weight: float = 2.0
    """Weight of the projected 3D centre."""
    depth_weight: float = 2.0
    """Weight of the depth."""
    size_weight: float = 2.0
    """Weight of the size."""
    confidence_weight: float = 1.0
    """Weight of the confidence in the 3D box."""
    attribute_weight: float = 0.2
    """Weight of the attributes."""
    speed_weight: float = 0.2
    """Weight of the speed."""
    corner_beta: float = 0.05
    """Metres: where the smooth L1 of the corners turns linear."""
    speed_beta: float = 0.05
    """m/s: where the smooth L1 of the speed turns linear."""

    def __post_init__(self) -> None:
        if any(low >= high for low, high in self.size_ranges):
            raise ValueError(f"size_ranges must be ascending pairs, got {self.size_ranges}")
        for name in ("center_radius", "corner_beta", "speed_beta"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


@dataclass(frozen=True)
class AugmentationConfig:
    """What a clip undergoes; the defaults leave it as it is."""

    mirror: float = 0.0
    """Probability of the world in a mirror."""
    turn: float = 0.0
    """Radians: the world is turned about the car by up to this, to either side."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Range of the scale of the world."""
    zoom: tuple[float, float] = (1.0, 1.0)
    """Range, per camera, of the zoom of the image about its principal point."""
    shift: float = 0.0
    """Per camera, of the image, at most, as a share of its width and height."""
    gain: tuple[float, float] = (1.0, 1.0)
    """Range, per camera, of the gain of brightness."""

    def __post_init__(self) -> None:
        if not 0 <= self.mirror <= 1:
            raise ValueError(f"mirror must be a probability, got {self.mirror}")
        for name in ("scale", "zoom", "gain"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be a positive ascending pair, got {(low, high)}")


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW with a linear warm-up and then half a cosine down to zero."""

    learning_rate: float = 2e-4
    """Largest learning rate, after the warm-up."""
    weight_decay: float = 0.01
    """Of AdamW."""
    warm_up: int = 500
    """Steps."""
    gradient_clip: float = 35.0
    """Largest norm of all gradients together."""
    ema_decay: float = 0.999
    """Per step, of the average of the weights, which is what is kept in the end."""

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or self.gradient_clip <= 0 or self.warm_up < 0 or self.weight_decay < 0:
            raise ValueError("learning_rate and gradient_clip must be positive, warm_up and weight_decay 0 or more")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must lie in 0..1, got {self.ema_decay}")


@dataclass(frozen=True)
class RareDrivesConfig:
    """Drives chosen for what is rare."""

    seeds: tuple[int, int]
    """First and one past the last of the pool."""
    drives: int
    """How many of the pool: those with most objects of rare classes."""

    def __post_init__(self) -> None:
        if not 1 <= self.drives <= self.seeds[1] - self.seeds[0]:
            raise ValueError(f"rare.drives must be 1 up to the number of seeds {self.seeds}, got {self.drives}")


@dataclass(frozen=True)
class WorldDataConfig:
    """Drives through the simulated world."""

    seeds: tuple[int, int]
    """First and one past the last, a drive each."""
    rare: RareDrivesConfig | None = None
    """More drives, chosen so that rare classes are seen more often."""
    frames: int = 6
    """Of a drive, one every interval of the model's history."""
    image_width: int = 800
    """Pixels, of images with the proportions of nuScenes'; the model resizes them as it does when it runs."""
    sensor: SensorConfig = PERFECT
    """How far the cameras are from perfect."""

    def __post_init__(self) -> None:
        if self.seeds[0] >= self.seeds[1] or self.frames < 1 or self.image_width < 16:
            raise ValueError(
                f"seeds must ascend, frames be positive and image_width at least 16, got {self.seeds}, {self.frames}, "
                f"{self.image_width}"
            )


@dataclass(frozen=True)
class NuscenesDataConfig:
    """Scenes of nuScenes, or of a data set in its format."""

    root: str
    """Folder with samples and the tables."""
    version: str = "v1.0-trainval"
    """Folder of the tables."""
    split: str = "train"
    """The devkit's name, or one in splits.json beside the tables."""


@dataclass(frozen=True)
class HeldOutConfig:
    """Scores of the averaged weights on worlds that are reserved for evaluation, now and then and at the end."""

    seeds: tuple[int, int] = (9500, 9503)
    """First and one past the last; not those that the finished weights are to be judged by."""
    seconds: float = 5.0
    """Of each world."""
    every: int = 100
    """Rounds between two evaluations."""

    def __post_init__(self) -> None:
        if self.seeds[0] >= self.seeds[1] or self.seconds <= 0 or self.every < 1:
            raise ValueError(
                f"held_out wants ascending seeds, positive seconds and every at least 1, got {self.seeds}, "
                f"{self.seconds} and {self.every}"
            )


@dataclass(frozen=True)
class TrainingConfig:
    """One training run.

    A round is one clip of clip_frames successive frames from each of `clips` drives side by side, for every process;
    each frame is one step, its history what the steps before left behind.
    """

    model: str
    """Name in config/models, or a YAML file."""
    world: WorldDataConfig | None = None
    """Drives through the simulated world to train on."""
    nuscenes: NuscenesDataConfig | None = None
    """Scenes to train on instead."""
    rounds: int = 1000
    """Length of the run."""
    clips: int = 4
    """Drives side by side in a round."""
    accumulate: int = 1
    """So many times `clips` drives in a round, one group after the other, whose gradients together make a step: for
    steps of more frames than memory holds at once."""
    clip_frames: int = 6
    """Successive frames of each, a step each."""
    frozen: tuple[str, ...] = ()
    """Parts of the network, such as `backbone` or `backbone.stem`, that stay as they are."""
    keep_encodings: bool = False
    """What the frozen parts make of a frame is kept in memory and not computed again. Needs all parts up to the BEV map
    to be frozen, and no augmentation but the mirror, since others never come twice."""
    seed: int = 0
    """Of weights, order and augmentation."""
    precision: PrecisionChoice = "auto"
    """What autocast computes in; auto takes the fastest here."""
    bev: BevLossConfig | None = BevLossConfig()
    """Loss of the decoder; null leaves it out, and freezes what only it would teach."""
    perspective: PerspectiveLossConfig | None = PerspectiveLossConfig()
    """Loss of the perspective head; null leaves it out, and freezes what only it would teach."""
    augmentation: AugmentationConfig = AugmentationConfig()
    """What a clip undergoes."""
    optimiser: OptimiserConfig = OptimiserConfig()
    """How the weights follow the gradients."""
    held_out: HeldOutConfig | None = None
    """Scores during the run."""

    @property
    def clips_per_round(self) -> int:
        """Of one process."""
        return self.clips * self.accumulate

    def __post_init__(self) -> None:
        for name in ("rounds", "clips", "accumulate", "clip_frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.bev is None and self.perspective is None:
            raise ValueError("bev and perspective are both null: nothing is left to learn")
        if self.keep_encodings:
            learning = [part for part in ENCODING_PARTS if part not in self.frozen]
            if learning or self.perspective is not None:
                raise ValueError(
                    f"keep_encodings needs perspective to be null and {', '.join(ENCODING_PARTS)} frozen, got frozen "
                    f"{', '.join(self.frozen) or 'nothing'}"
                )
            if self.augmentation != AugmentationConfig(mirror=self.augmentation.mirror):
                raise ValueError(f"keep_encodings allows no augmentation but mirror, got {self.augmentation}")
