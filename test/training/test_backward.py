"""Both losses of the whole two-stage network, with query groups and empty proposal slots."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support import REPOSITORY

from bevformer_ros.config import load_yaml
from bevformer_ros.model.box_coding import Boxes
from bevformer_ros.model.config import ModelConfig, ProposalConfig
from bevformer_ros.model.network import BEVFormerV2, NetworkInputs, build_network
from bevformer_ros.training.bev_loss import BevTruth, bev_loss
from bevformer_ros.training.config import BevLossConfig, PerspectiveLossConfig
from bevformer_ros.training.perspective_loss import perspective_loss
from bevformer_ros.training.perspective_targets import PerspectiveTruth


@pytest.fixture
def network() -> BEVFormerV2:
    """The shipped small one, on a smaller image and BEV map; it finds proposals from noise."""
    torch.manual_seed(0)
    shipped = load_yaml(ModelConfig, REPOSITORY / "config" / "models" / "tiny_two_stage.yaml")
    config = replace(
        shipped,
        image=replace(shipped.image, height=64),
        bev=replace(shipped.bev, rows=12, columns=10),
        decoder=replace(shipped.decoder, queries=20, groups=2),
        proposals=ProposalConfig(score_threshold=0.0, minimum_score=0.0, count=500),
        dropout=0.0,
        max_detections=20,
    )
    return build_network(config)


def bev_truth(count: int) -> BevTruth:
    boxes = Boxes(10 * torch.randn(count, 3), torch.ones(count, 3), torch.zeros(count), torch.zeros(count, 2))
    return BevTruth(boxes, torch.arange(count))


def perspective_truth(count: int) -> PerspectiveTruth:
    return PerspectiveTruth(
        boxes2d=torch.tensor([[0.0, 0.0, 60.0, 60.0]]).repeat(count, 1),
        labels=torch.arange(count),
        centers=torch.tensor([[0.0, 0.0, 10.0]]).repeat(count, 1),
        sizes=torch.ones(count, 3),
        rotations=torch.eye(3).repeat(count, 1, 1),
        attributes=torch.zeros(count, dtype=torch.int64),
        speeds=torch.zeros(count),
    )


@pytest.mark.parametrize("count", [0, 3])
def test_every_parameter_gets_a_gradient(network: BEVFormerV2, count: int) -> None:
    """Also without a single object: training on several GPUs waits for the gradient of every parameter."""
    config = network.config
    assert config.perspective is not None
    width, height = config.image.padded_size
    images = torch.randn(1, 6, 3, height, width)
    intrinsics = torch.tensor([[300.0, 0, width / 2], [0, 300, height / 2], [0, 0, 1]]).repeat(1, 6, 1, 1)
    camera_from_bev = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]).repeat(1, 6, 1, 1)
    image_from_bev = camera_from_bev.clone()
    image_from_bev[..., :3, :] = intrinsics @ camera_from_bev[..., :3, :]

    valid = torch.ones(1, 6, dtype=torch.bool)
    inputs = NetworkInputs(images, valid, intrinsics, camera_from_bev, image_from_bev)
    features = network.encode_images(inputs, every_perspective_level=True)
    assert features.perspective is not None
    output = network.detect(network.without_history(network.lift(features, inputs).bev), features.proposals)
    assert output.padding_mask is not None and output.padding_mask.any()
    assert not output.padding_mask[:, output.from_proposal].all()
    dense = perspective_loss(
        features.perspective, [perspective_truth(count)] * 6, intrinsics[0], config.perspective, PerspectiveLossConfig()
    )
    matched = bev_loss(output, [bev_truth(count)], BevLossConfig(), config.decoder.groups)
    (dense.total + matched.total).backward()

    assert not matched.assigned[:, output.padding_mask].ge(0).any()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert without == []
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
