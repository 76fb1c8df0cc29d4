"""What a pinhole camera at a known height tells about the depth of a box on the ground."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bevformer_ros.model.config import PerspectiveHeadConfig
from bevformer_ros.model.depth_cues import DepthCues
from bevformer_ros.model.perspective_boxes import inverse_intrinsics
from bevformer_ros.model.perspective_head import PerspectiveHead
from bevformer_ros.taxonomy import CLASS_ID

CONFIG = PerspectiveHeadConfig(strides=(8,), depth_means=(20.0,), depth_deviations=(5.0,), camera_cues=True)
INTRINSICS = torch.tensor([[[300.0, 0, 40], [0, 300, 16], [0, 0, 1]]])
CHANNELS = 4


def sides_of(top: float, bottom: float) -> Tensor:
    """A map of 2 x 3 locations whose boxes reach so far up and down."""
    return torch.tensor([5.0, top, 5.0, bottom]).view(1, 4, 1, 1).expand(1, 4, 2, 3)


def corrected(cues: DepthCues, sides: Tensor) -> Tensor:
    """Metres (K, h, w)."""
    depths = cues(torch.zeros(1, CHANNELS, 2, 3), sides, torch.full((1, 10, 2, 3), 30.0), INTRINSICS, stride=8)
    inverse = inverse_intrinsics(INTRINSICS)
    return depths[0].detach() / (torch.hypot(inverse[0, 0, 0], inverse[0, 1, 1]) * CONFIG.reference_focal_length)


def test_a_new_head_starts_from_its_own_depth() -> None:
    torch.manual_seed(0)
    plain, knowing = (PerspectiveHead(replace(CONFIG, camera_cues=cues), CHANNELS).eval() for cues in (False, True))
    knowing.load_state_dict(plain.state_dict(), strict=False)
    features = [torch.randn(1, CHANNELS, 4, 6)]
    expected, found = plain(features)[0], knowing(features, intrinsics=INTRINSICS)[0]
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("bottom", [20.0, 45.0])
def test_ground_contact(bottom: float) -> None:
    """A box that ends b pixels below a location of row 8 stands 1.5 m x 300 / (8 + b - 16) away."""
    cues = DepthCues(CONFIG, CHANNELS)
    torch.nn.init.ones_(cues.output.bias[:10])
    assert corrected(cues, sides_of(3.0, bottom))[:, 1] == pytest.approx(450 / (bottom - 8), rel=1e-5)


def test_apparent_height() -> None:
    """A car of 1.74 m that is 30 pixels high is 17.4 m away, a pedestrian of 1.76 m a little more."""
    cues = DepthCues(CONFIG, CHANNELS)
    torch.nn.init.ones_(cues.output.bias[10:20])
    metres = corrected(cues, sides_of(10.0, 20.0))
    assert metres[CLASS_ID["car"]] == pytest.approx(17.4352, rel=1e-5)
    assert metres[CLASS_ID["pedestrian"]] == pytest.approx(17.616143, rel=1e-5)


def test_a_box_that_ends_above_the_horizon_is_far_but_finite() -> None:
    cues = DepthCues(CONFIG, CHANNELS)
    torch.nn.init.ones_(cues.output.bias[:20])
    assert corrected(cues, sides_of(0.0, 0.0)).isfinite().all()
