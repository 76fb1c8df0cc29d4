"""Backbones of timm (PyTorch Image Models, Wightman 2019), which is imported only where a configuration names one.

Shapes: M images (batch x cameras).
"""

from __future__ import annotations

import difflib
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bevformer_ros.model.config import ImageConfig, TimmConfig

_STRIDES = [8, 16, 32]
_GREY_LEVEL_TOLERANCE = 0.5


class TimmBackbone(nn.Module):
    """Features at strides 8, 16 and 32. `output_channels` are their channels.

    timm's weights expect RGB, so the channels are swapped here.
    """

    def __init__(self, config: TimmConfig, image: ImageConfig) -> None:
        """With random weights. Raises ValueError where timm is missing, does not know the name, has no such feature
        maps for it, or where its weights want the images normalised in another way."""
        super().__init__()
        timm = import_timm(config.name)
        published = _published_config(timm, config.name)
        if config.pretrained:
            _check_weights(config.name, published, image)
        self.config = config
        self._arguments: dict[str, Any] = {"features_only": True, "out_indices": (-3, -2, -1)}
        if published.fixed_input_size:
            width, height = image.padded_size
            self._arguments["img_size"] = (height, width)
        self.body = timm.create_model(config.name, **self._arguments)
        strides = self.body.feature_info.reduction()
        if strides != _STRIDES:
            raise ValueError(f"backbone {config.name!r} has feature maps at strides {strides}, needed are {_STRIDES}")
        self.output_channels = tuple(self.body.feature_info.channels())
        self._channels_last = getattr(self.body, "output_fmt", "NCHW") == "NHWC"

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Normalised BGR images (M, 3, H, W) -> three maps (M, c, h, w) in the type of the weights."""
        maps = self.body(images.to(next(self.body.parameters()).dtype).flip(1))
        return tuple(level.permute(0, 3, 1, 2) if self._channels_last else level for level in maps)

    def load_published_weights(self) -> None:
        """timm downloads them, or takes them from its cache."""
        published = import_timm(self.config.name).create_model(self.config.name, pretrained=True, **self._arguments)
        self.body.load_state_dict(published.state_dict())


def load_pretrained(backbone: nn.Module) -> None:
    """What training does once before its first step: timm's weights, where the configuration asks for them.

    Building a network never downloads anything, because what runs on a car has weights of its own.
    """
    if isinstance(backbone, TimmBackbone) and backbone.config.pretrained:
        backbone.load_published_weights()


def import_timm(name: str) -> Any:
    try:
        _import_torchvision()
        import timm
    except (ImportError, RuntimeError) as error:
        raise ValueError(
            f"backbone {name!r} is one of timm's, which cannot be imported ({error}): pip install timm, with the "
            f"torchvision that belongs to torch {torch.__version__}"
        ) from error
    return timm


def _import_torchvision() -> None:
    """timm cannot do without. The wheels of torchvision are built for CUDA: beside a torch for the CPU its operators do
    not load, and the import fails over the shapes of two of them. timm calls neither; to declare them is enough."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for operator in ("nms", "qnms"):
            schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{operator}", schema)


def _published_config(timm: Any, name: str) -> Any:
    """What timm says of a model and of its weights. ValueError for a name or tag that it does not have."""
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        similar = ", ".join(difflib.get_close_matches(architecture, timm.list_models(), n=5))
        raise ValueError(f"timm {timm.__version__} has no model {name!r}; similar are {similar or 'none'}")
    tags = [entry.partition(".")[2] for entry in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise ValueError(f"timm {timm.__version__} has no weights {tag!r} of {architecture}, but {', '.join(tags)}")
    return timm.get_pretrained_cfg(name)


def _check_weights(name: str, published: Any, image: ImageConfig) -> None:
    """Whether there are any, and for images as ours. The published numbers are RGB, as shares of white."""
    if not published.has_weights:
        raise ValueError(f"timm has no weights of {name!r}; set pretrained to false")
    wanted = [[round(255 * value, 3) for value in reversed(rgb)] for rgb in (published.mean, published.std)]
    actual = [list(image.mean), list(image.deviation)]
    if np.abs(np.subtract(wanted, actual)).max() > _GREY_LEVEL_TOLERANCE:
        raise ValueError(
            f"the weights of {name!r} were trained with `image: {{mean: {wanted[0]}, deviation: {wanted[1]}}}` (BGR), "
            f"but the model has {actual[0]} and {actual[1]}"
        )
