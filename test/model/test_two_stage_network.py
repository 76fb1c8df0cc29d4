"""The two-stage network as a whole."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch
from support import REPOSITORY

from bevformer_ros.config import load_yaml
from bevformer_ros.model.checkpoint import load_weights
from bevformer_ros.model.config import ModelConfig, ProposalConfig
from bevformer_ros.model.network import BEVFormerV2, NetworkInputs, build_network

MODELS = REPOSITORY / "config" / "models"


@pytest.fixture(scope="module")
def config() -> ModelConfig:
    """The shipped one, with a smaller image and BEV map."""
    shipped = load_yaml(ModelConfig, MODELS / "tiny_two_stage.yaml")
    assert shipped.two_stage
    return replace(
        shipped,
        image=replace(shipped.image, height=64),
        bev=replace(shipped.bev, rows=12, columns=10),
        encoder=replace(shipped.encoder, layers=1),
    )


def one_stage(config: ModelConfig) -> BEVFormerV2:
    torch.manual_seed(0)
    return build_network(replace(config, two_stage=False)).eval()


def inputs(config: ModelConfig) -> NetworkInputs:
    """Noise, seen by cameras that all look along +y."""
    width, height = config.image.padded_size
    cameras = len(config.cameras)
    intrinsics = torch.tensor([[300.0, 0, width / 2], [0, 300, height / 2], [0, 0, 1]]).expand(1, cameras, 3, 3)
    camera_from_bev = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    camera_from_bev = camera_from_bev.expand(1, cameras, 4, 4)
    image_from_bev = camera_from_bev.clone()
    image_from_bev[..., :3, :] = intrinsics @ camera_from_bev[..., :3, :]
    return NetworkInputs(
        images=torch.randn(1, cameras, 3, height, width, generator=torch.Generator().manual_seed(1)),
        camera_valid=torch.ones(1, cameras, dtype=torch.bool),
        intrinsics=intrinsics,
        camera_from_bev=camera_from_bev,
        image_from_bev=image_from_bev,
    )


def test_weights_that_never_saw_proposals_load_with_a_warning(
    config: ModelConfig, caplog: pytest.LogCaptureFixture
) -> None:
    released = one_stage(config).state_dict()
    network = build_network(config)
    with caplog.at_level(logging.WARNING):
        assert load_weights(network, released) == []
    assert "trained without proposals" in caplog.text

    caplog.clear()
    load_weights(build_network(config), network.state_dict())
    load_weights(one_stage(config), released)
    assert caplog.text == ""


def test_a_second_stage_that_lacks_a_tensor_is_refused(config: ModelConfig) -> None:
    weights = build_network(config).state_dict()
    del weights["proposal_queries.content"]
    with pytest.raises(ValueError, match=r"missing proposal_queries\.content"):
        load_weights(build_network(config), weights)


def test_proposals_of_a_one_stage_model_are_for_comparison_only(config: ModelConfig) -> None:
    everything = ProposalConfig(score_threshold=0.0, minimum_score=0.0)
    network, given = one_stage(replace(config, proposals=everything)), inputs(config)
    with torch.no_grad():
        proposals = network.encode(given).proposals
        bev = torch.randn(1, config.bev.rows * config.bev.columns, config.channels)
        with_proposals, without = network.decode(bev, proposals), network.decode(bev)
    assert proposals is not None
    assert proposals.valid.any()
    assert torch.equal(with_proposals.class_logits, without.class_logits)
    assert not with_proposals.from_proposal.any()


def test_a_model_without_proposals_makes_none(config: ModelConfig) -> None:
    network, given = one_stage(replace(config, two_stage=False, proposals=None)), inputs(config)
    with torch.no_grad():
        assert network.encode(given).proposals is None


def test_two_stage_forward(config: ModelConfig) -> None:
    torch.manual_seed(0)
    network, given = build_network(config).eval(), inputs(config)
    with torch.no_grad():
        output = network(given)
    assert config.proposals is not None
    assert output.from_proposal.sum() == config.proposals.count
    assert output.class_logits.shape[2] == config.decoder.queries + config.proposals.count
    assert output.padding_mask is not None
    assert not output.padding_mask[:, ~output.from_proposal].any()


def test_no_step_looks_at_the_data(config: ModelConfig) -> None:
    """On the meta device tensors have shapes but no values: whatever asks for one (item, nonzero, a mask as an index)
    would wait for the GPU, and raises here."""
    given = NetworkInputs(*(tensor.to("meta") for tensor in inputs(config)))
    with torch.device("meta"):
        output = build_network(config).eval()(given)
    assert output.class_logits.is_meta


def test_one_backward_pass_reaches_every_parameter(config: ModelConfig) -> None:
    """Of the two-stage network with enriched content; the perspective head's loss stands for its own."""
    torch.manual_seed(0)
    settings = ProposalConfig(score_threshold=0.0, minimum_score=0.0)
    network = build_network(replace(config, proposals=settings, dropout=0.0))
    given = inputs(config)
    levels = network.encode_images(given, every_perspective_level=True).perspective
    assert levels is not None
    output = network(given)
    own_loss = sum((values**2).mean() for level in levels for values in level)
    (own_loss + output.class_logits.square().mean() + output.box_codes.square().mean()).backward()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert without == []
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
