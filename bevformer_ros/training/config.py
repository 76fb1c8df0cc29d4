"""What a training run is made of; the defaults of the losses are those of the released models."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bevformer_ros.inference.precision import PrecisionChoice
from bevformer_ros.model.box_coding import BOX_CODE_SIZE
from bevformer_ros.simulation.sensor import PERFECT, SensorConfig


@dataclass(frozen=True)
class FocalConfig:
    """Sigmoid focal loss (Lin et al. 2017): alpha weighs the positives, gamma plays down what is already right."""

    alpha: float = 0.25
    gamma: float = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1 or self.gamma < 0:
            raise ValueError(f"alpha must lie in 0..1 and gamma be 0 or more, got {self.alpha} and {self.gamma}")


@dataclass(frozen=True)
class BevLossConfig:
    """Set loss of the decoder; the weights count for matching as well.

    quality_distance: metres; the class target of a matched query is exp(-distance / this) of its box's centre on the
    ground instead of 1, so that scores learn to tell how well a box is placed (quality focal loss, Li et al. 2020).
    proposal_radius: metres; a proposal's query is matched with no object farther than this from its box: what the first
    stage missed is left to the learned queries. None, as in the released models, matches every object with some query.
    box_beta: where the smooth L1 of the boxes turns from square to linear. code_weights: per number of the box code
    (x, y, log width, log length, z, log height, sine, cosine, velocity x, y), in the loss but not in the matching.
    """

    focal: FocalConfig = FocalConfig()
    class_weight: float = 2.0
    box_weight: float = 0.75
    quality_distance: float | None = None
    proposal_radius: float | None = None
    box_beta: float = 1.0
    code_weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2)

    def __post_init__(self) -> None:
        if len(self.code_weights) != BOX_CODE_SIZE:
            raise ValueError(f"code_weights must have {BOX_CODE_SIZE} entries, got {len(self.code_weights)}")
        if self.box_beta <= 0:
            raise ValueError(f"box_beta must be positive, got {self.box_beta}")
        for name in ("quality_distance", "proposal_radius"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive metres or null, got {value}")


@dataclass(frozen=True)
class PerspectiveLossConfig:
    """Dense loss of the perspective head (DD3D, Park et al. 2021).

    size_ranges: pixels, per level, finest first: a location learns an object if the farthest side of its 2D box lies
    at a distance in this range. center_radius: in strides, half the square around the 2D centre that learns.
    sides_weight: of the mean distance in pixels of a 2D box's four sides; the released models learned them by overlap
    alone. corner_beta: metres, speed_beta: m/s, where the smooth L1 turns linear.
    """

    focal: FocalConfig = FocalConfig()
    size_ranges: tuple[tuple[float, float], ...] = ((-1, 64), (64, 128), (128, 256), (256, 512), (512, math.inf))
    center_radius: float = 1.5
    boxes2d_weight: float = 1.0
    sides_weight: float = 0.0
    rotation_weight: float = 2.0
    center_weight: float = 2.0
    depth_weight: float = 2.0
    size_weight: float = 2.0
    confidence_weight: float = 1.0
    attribute_weight: float = 0.2
    speed_weight: float = 0.2
    corner_beta: float = 0.05
    speed_beta: float = 0.05

    def __post_init__(self) -> None:
        if any(low >= high for low, high in self.size_ranges):
            raise ValueError(f"size_ranges must be ascending pairs, got {self.size_ranges}")
        for name in ("center_radius", "corner_beta", "speed_beta"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


@dataclass(frozen=True)
class AugmentationConfig:
    """What a clip undergoes; the defaults leave it as it is.

    mirror: probability. turn: radians, at most, to either side. scale: of the world. Per camera: zoom: of the image
    about its principal point. shift: of the image, at most, as a share of its width and height. gain: of brightness.
    """

    mirror: float = 0.0
    turn: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    zoom: tuple[float, float] = (1.0, 1.0)
    shift: float = 0.0
    gain: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        if not 0 <= self.mirror <= 1:
            raise ValueError(f"mirror must be a probability, got {self.mirror}")
        for name in ("scale", "zoom", "gain"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be a positive ascending pair, got {(low, high)}")


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW with a linear warm-up and then half a cosine down to zero.

    warm_up: steps. gradient_clip: largest norm of all gradients together. ema_decay: of the average of the weights,
    per step, which is what is kept in the end.
    """

    learning_rate: float = 2e-4
    weight_decay: float = 0.01
    warm_up: int = 500
    gradient_clip: float = 35.0
    ema_decay: float = 0.999

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or self.gradient_clip <= 0 or self.warm_up < 0 or self.weight_decay < 0:
            raise ValueError("learning_rate and gradient_clip must be positive, warm_up and weight_decay 0 or more")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must lie in 0..1, got {self.ema_decay}")


@dataclass(frozen=True)
class RareDrivesConfig:
    """Drives chosen for what is rare. seeds: first and one past the last of the pool. drives: how many of it, those
    with most objects of rare classes."""

    seeds: tuple[int, int]
    drives: int

    def __post_init__(self) -> None:
        if not 1 <= self.drives <= self.seeds[1] - self.seeds[0]:
            raise ValueError(f"rare.drives must be 1 up to the number of seeds {self.seeds}, got {self.drives}")


@dataclass(frozen=True)
class WorldDataConfig:
    """Drives through the simulated world. seeds: first and one past the last, a drive each. rare: more drives, chosen
    so that rare classes are seen more often. frames: of a drive, every interval of the model's history. image_width:
    pixels, of images with the proportions of nuScenes'; the model resizes them as it does when it runs. sensor: how
    far the cameras are from perfect."""

    seeds: tuple[int, int]
    rare: RareDrivesConfig | None = None
    frames: int = 6
    image_width: int = 800
    sensor: SensorConfig = PERFECT

    def __post_init__(self) -> None:
        if self.seeds[0] >= self.seeds[1] or self.frames < 1 or self.image_width < 16:
            raise ValueError(
                f"seeds must ascend, frames be positive and image_width at least 16, got {self.seeds}, {self.frames}, "
                f"{self.image_width}"
            )


@dataclass(frozen=True)
class NuscenesDataConfig:
    """Scenes of nuScenes, or of a data set in its format. root: folder with samples and the tables. split: the
    devkit's name, or one in splits.json beside the tables."""

    root: str
    version: str = "v1.0-trainval"
    split: str = "train"


@dataclass(frozen=True)
class HeldOutConfig:
    """Scores of the averaged weights on worlds that are reserved for evaluation, every so many rounds and at the end.

    seeds: first and one past the last; not those that the finished weights are to be judged by. seconds: of each world.
    """

    seeds: tuple[int, int] = (9500, 9503)
    seconds: float = 5.0
    every: int = 100

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
    each frame is one step, its history what the steps before left behind. frozen: parts of the network, such as
    `backbone` or `backbone.stem`, that stay as they are. bev, perspective: None leaves that loss out, and freezes what
    only it would teach. held_out: scores during the run. precision: what autocast computes in.
    """

    model: str
    world: WorldDataConfig | None = None
    nuscenes: NuscenesDataConfig | None = None
    rounds: int = 1000
    clips: int = 4
    clip_frames: int = 6
    frozen: tuple[str, ...] = ()
    seed: int = 0
    precision: PrecisionChoice = "auto"
    bev: BevLossConfig | None = BevLossConfig()
    perspective: PerspectiveLossConfig | None = PerspectiveLossConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    held_out: HeldOutConfig | None = None

    def __post_init__(self) -> None:
        for name in ("rounds", "clips", "clip_frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.bev is None and self.perspective is None:
            raise ValueError("bev and perspective are both null: nothing is left to learn")
