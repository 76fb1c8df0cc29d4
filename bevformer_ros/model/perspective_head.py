"""Monocular 3D head on the image features: class, 2D box and 3D box at every location (paper, section 3.3).

Shapes: M images (batch x cameras), K classes, C channels, h x w one level's feature map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bevformer_ros.model.config import PerspectiveHeadConfig
from bevformer_ros.model.depth_cues import DepthCues
from bevformer_ros.model.fused_operators import convolve_relu

ATTRIBUTES_PER_CLASS = 3
_PRIOR_PROBABILITY = 0.01  # of a class at a location of a new head: almost all are background
_INITIAL_DEPTH_SCALE = 0.3


class PerspectiveLevel(NamedTuple):
    """Raw outputs of one level, each (M, channels, h, w); the channels of 3D outputs are component * K + class.

    box2d: pixels from the location to the left, top, right and bottom side. quaternions: (w, x, y, z), not
    normalised, of the rotation seen along the ray to the object (allocentric). center_offsets: pixels from the
    location to the projected 3D centre. depths: metres for the reference focal length. sizes: width, length, height
    relative to the canonical size, before tanh. speeds: m/s.
    """

    class_logits: Tensor  # K
    box2d: Tensor  # 4
    centerness: Tensor  # 1
    quaternions: Tensor  # 4K
    center_offsets: Tensor  # 2K
    depths: Tensor  # K
    sizes: Tensor  # 3K
    confidences: Tensor  # K
    attributes: Tensor  # 3
    speeds: Tensor  # 1


class SharedConv(nn.Module):
    """3x3 convolution shared by all levels, followed by the level's own batch normalisation and ReLU."""

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        self.conv: nn.Module = conv
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(levels))

    def forward(self, feature: Tensor, level: int) -> Tensor:
        if isinstance(self.conv, nn.Identity):
            return convolve_relu(self.norms[level], feature)
        return self.norms[level](self.conv(feature)).relu_()

    def fold(self) -> None:
        """For inference: a convolution of its own for each level, in the norm's place."""
        conv, norms = self.conv, [norm for norm in self.norms if isinstance(norm, nn.BatchNorm2d)]
        assert isinstance(conv, nn.Conv2d)
        self.norms = nn.ModuleList(fuse_conv_bn_eval(conv, norm) for norm in norms)
        self.conv = nn.Identity()


class PerspectiveHead(nn.Module):
    """Three towers and their predictors, run on every level with shared weights but the level's own scales."""

    def __init__(self, config: PerspectiveHeadConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        classes, levels = len(config.canonical_sizes), len(config.strides)
        self.class_tower = _tower(channels, config.tower_depth, levels)
        self.box2d_tower = _tower(channels, config.tower_depth, levels)
        self.box3d_tower = _tower(channels, config.tower_depth, levels)

        self.class_logits = _predictor(channels, classes)
        assert self.class_logits.bias is not None
        nn.init.constant_(self.class_logits.bias, -math.log(1 / _PRIOR_PROBABILITY - 1))
        self.attribute = _predictor(channels, ATTRIBUTES_PER_CLASS)
        self.speed = _predictor(channels, 1)
        self.box2d = _predictor(channels, 4)
        self.centerness = _predictor(channels, 1)
        self.quaternion = _predictor(channels, 4 * classes)
        self.center_offset = _predictor(channels, 2 * classes)
        self.depth = _predictor(channels, classes, bias=False)
        self.size = _predictor(channels, 3 * classes)
        self.confidence = _predictor(channels, classes)

        self.box2d_scales = _per_level(config.strides)
        self.center_offset_scales = _per_level(config.strides)
        self.size_scales = _per_level([1.0] * levels)
        self.confidence_scales = _per_level([1.0] * levels)
        self.depth_scales = _per_level([_INITIAL_DEPTH_SCALE * deviation for deviation in config.depth_deviations])
        self.depth_offsets = _per_level(config.depth_means)
        self.joined: nn.ModuleList | None = None  # one convolution for each of a level's three towers, once folded
        self.depth_cues = DepthCues(config, channels) if config.camera_cues else None
        # Not used again, but part of the official state dict.
        self.register_buffer("depth_means", torch.tensor(config.depth_means))
        self.register_buffer("depth_deviations", torch.tensor(config.depth_deviations))

    def forward(
        self, features: Sequence[Tensor], first_level: int = 0, intrinsics: Tensor | None = None
    ) -> list[PerspectiveLevel]:
        """Raw outputs of the levels from first_level on.

        features: all levels, each (M, C, h, w). intrinsics: (M, 3, 3) of the network input; only camera_cues need them.
        """
        return [self._level(features[level], level, intrinsics) for level in range(first_level, len(features))]

    def _level(self, feature: Tensor, level: int, intrinsics: Tensor | None) -> PerspectiveLevel:
        towers = (self.class_tower, self.box2d_tower, self.box3d_tower)
        features = [_through(tower, feature, level) for tower in towers]
        (
            (class_logits, attributes, speeds),
            (box2d, centerness),
            (quaternions, center_offsets, depths, sizes, confidences),
        ) = (self._predict(tower, features[tower], level) for tower in range(len(towers)))
        sides = box2d.relu()
        depths = depths + self.depth_offsets[level]
        if self.depth_cues is not None:
            assert intrinsics is not None
            depths = self.depth_cues(features[2], sides.detach(), depths, intrinsics, self.config.strides[level])
        return PerspectiveLevel(
            class_logits=class_logits,
            box2d=sides,
            centerness=centerness,
            quaternions=quaternions,
            center_offsets=center_offsets,
            depths=depths,
            sizes=sizes,
            confidences=confidences,
            attributes=attributes,
            speeds=speeds.relu(),
        )

    def fold(self) -> None:
        """For inference: the joined predictors are computed once."""
        levels = range(len(self.config.strides))
        self.joined = nn.ModuleList(_convolution(*self._joined(tower, level)) for level in levels for tower in range(3))

    def _predict(self, tower: int, features: Tensor, level: int) -> tuple[Tensor, ...]:
        """All predictors of a tower as one convolution: alone, one of few channels costs as much as one of many."""
        if self.joined is None:
            outputs = F.conv2d(features, *self._joined(tower, level), padding=1)
        else:
            outputs = self.joined[3 * level + tower](features)
        return outputs.split([predictor.out_channels for predictor, _ in self._predictors()[tower]], dim=1)

    def _joined(self, tower: int, level: int) -> tuple[Tensor, Tensor]:
        """Weight and bias of a tower's predictors, with the level's scales."""
        weights, biases = [], []
        for predictor, scales in self._predictors()[tower]:
            bias = predictor.weight.new_zeros(predictor.out_channels) if predictor.bias is None else predictor.bias
            scale = 1.0 if scales is None else scales[level]
            weights.append(predictor.weight * scale)
            biases.append(bias * scale)
        return torch.cat(weights), torch.cat(biases)

    def _predictors(self) -> tuple[tuple[tuple[nn.Conv2d, nn.ParameterList | None], ...], ...]:
        """Of each tower, with the scales that some have for each level."""
        return (
            ((self.class_logits, None), (self.attribute, None), (self.speed, None)),
            ((self.box2d, self.box2d_scales), (self.centerness, None)),
            (
                (self.quaternion, None),
                (self.center_offset, self.center_offset_scales),
                (self.depth, self.depth_scales),
                (self.size, self.size_scales),
                (self.confidence, self.confidence_scales),
            ),
        )


def _convolution(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    with torch.device(weight.device):
        convolution = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], padding=1)
    convolution.weight, convolution.bias = (nn.Parameter(values, requires_grad=False) for values in (weight, bias))
    return convolution


def _tower(channels: int, depth: int, levels: int) -> nn.ModuleList:
    return nn.ModuleList(SharedConv(channels, levels) for _ in range(depth))


def _through(tower: nn.ModuleList, feature: Tensor, level: int) -> Tensor:
    for layer in tower:
        feature = layer(feature, level)
    return feature


def _predictor(channels: int, outputs: int, bias: bool = True) -> nn.Conv2d:
    conv = nn.Conv2d(channels, outputs, 3, padding=1, bias=bias)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def _per_level(values: Sequence[float]) -> nn.ParameterList:
    return nn.ParameterList(nn.Parameter(torch.tensor([float(value)])) for value in values)
