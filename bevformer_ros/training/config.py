"""Weights and shapes of the losses; the defaults are those of the released models."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bevformer_ros.model.box_coding import BOX_CODE_SIZE


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

    box_beta: where the smooth L1 of the boxes turns from square to linear. code_weights: per number of the box code
    (x, y, log width, log length, z, log height, sine, cosine, velocity x, y), in the loss but not in the matching.
    """

    focal: FocalConfig = FocalConfig()
    class_weight: float = 2.0
    box_weight: float = 0.75
    box_beta: float = 1.0
    code_weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2)

    def __post_init__(self) -> None:
        if len(self.code_weights) != BOX_CODE_SIZE:
            raise ValueError(f"code_weights must have {BOX_CODE_SIZE} entries, got {len(self.code_weights)}")
        if self.box_beta <= 0:
            raise ValueError(f"box_beta must be positive, got {self.box_beta}")


@dataclass(frozen=True)
class PerspectiveLossConfig:
    """Dense loss of the perspective head (DD3D, Park et al. 2021).

    size_ranges: pixels, per level, finest first: a location learns an object if the farthest side of its 2D box lies
    at a distance in this range. center_radius: in strides, half the square around the 2D centre that learns.
    corner_beta: metres, speed_beta: m/s, where the smooth L1 turns linear.
    """

    focal: FocalConfig = FocalConfig()
    size_ranges: tuple[tuple[float, float], ...] = ((-1, 64), (64, 128), (128, 256), (256, 512), (512, math.inf))
    center_radius: float = 1.5
    box3d_weight: float = 2.0
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
