"""Focal loss by hand: at probability one half every factor is a power of two."""

from __future__ import annotations

import math

import pytest
import torch

from bevformer_ros.training.config import FocalConfig
from bevformer_ros.training.focal import focal_loss


def test_no_logits() -> None:
    assert focal_loss(torch.zeros(0, 3), torch.zeros(0, 3), FocalConfig()).shape == (0, 3)


@pytest.mark.parametrize(
    ("logit", "target", "expected"),
    [
        (0.0, 1.0, 0.25 * 0.5**2 * math.log(2)),
        (0.0, 0.0, 0.75 * 0.5**2 * math.log(2)),
        (-math.log(3), 0.0, 0.75 * 0.25**2 * math.log(4 / 3)),  # probability 1/4
        (-math.log(3), 1.0, 0.25 * 0.75**2 * math.log(4)),
        (-200.0, 1.0, 0.25 * 200),
    ],
)
def test_focal_loss(logit: float, target: float, expected: float) -> None:
    loss = focal_loss(torch.tensor(logit), torch.tensor(target), FocalConfig())
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("values", [{"alpha": 1.5}, {"gamma": -1.0}])
def test_bad_config(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="alpha must lie in 0..1"):
        FocalConfig(**values)
