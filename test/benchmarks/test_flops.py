"""Counted work against sums that can be done by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bevformer_ros.benchmarks.flops import count_work
from bevformer_ros.model.config import (
    BackboneConfig,
    BevGridConfig,
    DecoderConfig,
    EncoderConfig,
    ImageConfig,
    ModelConfig,
    PerspectiveHeadConfig,
    ProposalConfig,
    TemporalConfig,
)

CELLS = 6 * 4
FEATURES = 4 * 8 + 2 * 4 + 1 * 2 + 1 * 1  # locations of all four levels of a 32 x 64 image
CONFIG = ModelConfig(
    name="by hand",
    image=ImageConfig(source_size=(64, 32), crop=(0, 0, 64, 32), height=32),
    cameras=("left", "right"),
    channels=16,
    backbone=BackboneConfig(depth=18, base_channels=8),
    bev=BevGridConfig(rows=6, columns=4),
    encoder=EncoderConfig(layers=3, heads=2, hidden_channels=10),
    decoder=DecoderConfig(layers=1, heads=2, hidden_channels=10, queries=5),
    perspective=None,
    max_detections=5,
)
NOTHING_SEEN = torch.zeros(1, 2, 4, 4)


def test_linear_layers_of_the_encoder() -> None:
    query_weights = (
        2 * 16 * (2 * 2 * 4 * 3)  # self-attention: offsets x, y and weight of 2 sets of 4 points in 2 heads
        + 16 * 16 * 4  # value and output of the self-attention, output of the cross-attention, ...
        - 16 * 16  # ... whose values are made of image features
        + 16 * (2 * 4 * 8 * 3)  # cross-attention: 8 points on 4 levels in 2 heads
        + 2 * 16 * 10  # feed-forward
    )
    per_layer = 2 * (CELLS * query_weights + 2 * FEATURES * 16 * 16)
    work = count_work(CONFIG, NOTHING_SEEN)["encoder"]
    assert work.matrices == 3 * per_layer
    assert work.convolutions == 0


def test_cells_are_sampled_in_the_cameras_that_see_them() -> None:
    in_grid = 3 * CELLS * 8 * (8 * 16 + 32 * 2)
    assert count_work(CONFIG, NOTHING_SEEN)["encoder"].samples == in_grid
    seen = torch.zeros(1, 2, 4, 4)
    seen[:, 1, :3, 3] = torch.tensor([10.0, 10.0, 1.0])  # every point at pixel (10, 10) of the right camera
    in_camera = 3 * CELLS * 4 * 8 * (8 * 16 + 32 * 2)
    assert count_work(CONFIG, seen)["encoder"].samples == in_grid + in_camera


def test_stem_of_the_backbone_is_counted() -> None:
    stem = 2 * (2 * 16 * 32) * (3 * 7 * 7) * 8  # two images at half size, 7 x 7 x 3 to 8 channels
    backbone = count_work(CONFIG, NOTHING_SEEN)["backbone"]
    assert stem < backbone.convolutions < 40 * stem
    assert backbone.matrices == 0


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        pytest.param({}, ["backbone", "neck", "encoder", "decoder"], id="one frame"),
        pytest.param(
            {"temporal": TemporalConfig(frames=(-2, -1, 0))},
            ["backbone", "neck", "encoder", "buffer", "fusion", "decoder"],
            id="re-encoded history",
        ),
        pytest.param(
            {
                "temporal": TemporalConfig(frames=(-1, 0), mode="warp"),
                "perspective": PerspectiveHeadConfig(),
                "proposals": ProposalConfig(candidates_per_level=2, boxes_per_image=2, count=2),
                "two_stage": True,
            },
            ["backbone", "neck", "perspective", "encoder", "fusion", "decoder"],
            id="two stages, warped history",
        ),
    ],
)
def test_stages_follow_the_configuration(changes: dict, stages: list[str]) -> None:
    work = count_work(replace(CONFIG, **changes), NOTHING_SEEN)
    assert [name for name, stage in work.items() if stage.flops] == stages


def test_each_past_frame_is_encoded_anew() -> None:
    work = count_work(replace(CONFIG, temporal=TemporalConfig(frames=(-3, -2, -1, 0))), NOTHING_SEEN)
    assert work["buffer"].flops == 3 * work["encoder"].flops
