"""The network as a whole: every shipped configuration, gradients, static shapes, precision."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support import REPOSITORY
from torch import nn

from bevformer_ros.config import load_yaml
from bevformer_ros.inference.network_preparation import prepare_for_inference
from bevformer_ros.model.box_coding import decode_boxes
from bevformer_ros.model.config import (
    BevGridConfig,
    DecoderConfig,
    EncoderConfig,
    ImageConfig,
    ModelConfig,
    TemporalConfig,
)
from bevformer_ros.model.decoder import DecoderOutput
from bevformer_ros.model.network import BEVFormerV2, NetworkInputs, build_network

MODELS = sorted((REPOSITORY / "config" / "models").glob("*.yaml"))


@pytest.fixture(params=["tiny", "tiny_two_stage"])
def config(request: pytest.FixtureRequest) -> ModelConfig:
    """A shipped one, smaller still."""
    (path,) = (path for path in MODELS if path.stem == request.param)
    shipped = load_yaml(ModelConfig, path)
    return replace(
        shipped,
        image=replace(shipped.image, height=64),
        channels=16,
        bev=replace(shipped.bev, rows=10, columns=12),
        decoder=replace(shipped.decoder, queries=20, groups=2),
    )


def inputs(config: ModelConfig, batch: int = 1) -> NetworkInputs:
    """Noise, seen by cameras that all look ahead."""
    width, height = config.image.padded_size
    cameras = len(config.cameras)
    intrinsics = torch.tensor([[60.0, 0, width / 2], [0, 60, height / 2], [0, 0, 1]])
    camera_from_bev = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    image_from_bev = camera_from_bev.clone()
    image_from_bev[:3] = intrinsics @ camera_from_bev[:3]
    return NetworkInputs(
        images=50 * torch.randn(batch, cameras, 3, height, width, generator=torch.Generator().manual_seed(0)),
        camera_valid=torch.ones(batch, cameras, dtype=torch.bool),
        intrinsics=intrinsics.expand(batch, cameras, 3, 3),
        camera_from_bev=camera_from_bev.expand(batch, cameras, 4, 4),
        image_from_bev=image_from_bev.expand(batch, cameras, 4, 4),
    )


def network_of(config: ModelConfig) -> BEVFormerV2:
    torch.manual_seed(0)
    return build_network(config)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_every_shipped_configuration_builds(path: Path) -> None:
    config = load_yaml(ModelConfig, path)
    assert config.name == path.stem
    with torch.device("meta"):
        build_network(config)


@pytest.mark.parametrize("batch", [1, 2])
def test_shapes(config: ModelConfig, batch: int) -> None:
    network = network_of(config).eval()
    given = inputs(config, batch)
    with torch.no_grad():
        features = network.image_features(given.images)
        output = network(given)
    assert [tuple(level.shape[:3]) for level in features] == [(batch, 6, 16)] * config.pyramid_levels
    queries = 20 + (config.proposals.count if config.two_stage else 0)
    assert output.class_logits.shape == (2, batch, queries, 10)
    assert output.box_codes.shape == (2, batch, queries, 10)
    assert output.from_proposal.sum() == queries - 20


def test_stages_are_marked_in_their_order(config: ModelConfig) -> None:
    """Those after which the status, the benchmark and the count of FLOPs name their numbers."""
    marks: list[str] = []
    with torch.no_grad():
        network_of(config).eval()(inputs(config), marks.append)
    perspective = ["perspective"] if config.two_stage else []
    assert marks == ["backbone", "neck", *perspective, "encoder", "buffer", "fusion", "decoder"]


def test_training_uses_every_group(config: ModelConfig) -> None:
    output = network_of(config).train()(inputs(config))
    per_group = 20 + (config.proposals.count if config.two_stage else 0)
    assert output.class_logits.shape[2] == 2 * per_group


def test_one_backward_pass_reaches_every_parameter(config: ModelConfig) -> None:
    network = network_of(config).train()
    given = inputs(config)
    output = network(given)
    loss = output.class_logits.sin().sum() + output.box_codes.sin().sum()
    features = network.encode_images(given, every_perspective_level=True)
    for level in features.perspective or []:  # trained by a loss of its own
        loss = loss + sum(values.sin().sum() for values in level)
    (loss + features.levels[-1].sin().sum()).backward()
    missed = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert missed == []


def test_shapes_do_not_depend_on_data_and_nothing_waits_for_the_device(config: ModelConfig) -> None:
    """On the meta device there is no data: reading a value, or a shape made from one, would fail."""
    network = network_of(config).eval().to("meta")
    with torch.no_grad():
        output: DecoderOutput = network(NetworkInputs(*(tensor.to("meta") for tensor in inputs(config))))
        logits, codes = output.class_logits[-1], output.box_codes[-1]
        decoded = decode_boxes(logits, codes, 30, 0.1, output.padding_mask)
    assert decoded.valid.shape == (1, 30)


def test_rows_on_a_gpu_give_the_same_map(config: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """All pairs of camera and cell, where the CPU takes only those that see something."""
    from bevformer_ros.model.attention import torch_sampling

    network = network_of(config).eval()
    given = inputs(config)
    with torch.no_grad():
        features = network.bev_encoder.flatten(network.image_features(given.images))
        expected = network.encode_bev(features, given.image_from_bev, None)
        monkeypatch.setattr(torch_sampling, "_DATA_DEPENDENT_SHAPES", ())
        torch.testing.assert_close(network.encode_bev(features, given.image_from_bev, None), expected)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.15), (torch.float16, 0.02)])
def test_reduced_precision_stays_close(config: ModelConfig, dtype: torch.dtype, tolerance: float) -> None:
    """Bounds are about three times what was measured, relative to the largest value."""
    config = replace(config, two_stage=False)
    network = network_of(config).eval()
    reduced = prepare_for_inference(copy.deepcopy(network), torch.device("cpu"), dtype)
    with torch.no_grad():
        expected, actual = network(inputs(config)), reduced(inputs(config))
    for name in ("class_logits", "box_codes"):
        assert getattr(actual, name).dtype == torch.float32
        last = getattr(expected, name)[-1]
        assert (getattr(actual, name)[-1] - last).abs().max() / last.abs().max() < tolerance, name


def test_folded_network_gives_the_same(config: ModelConfig) -> None:
    """With statistics of batch norm that do something."""
    network = network_of(config).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    given = inputs(config)
    with torch.no_grad():
        expected = network(given)
        folded = prepare_for_inference(network, torch.device("cpu"))
        actual = folded(given)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    for name in ("class_logits", "box_codes"):
        torch.testing.assert_close(getattr(actual, name)[-1], getattr(expected, name)[-1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda: ImageConfig(crop=(0, 0, 2000, 900)), "does not lie inside source_size"),
        (lambda: ImageConfig(deviation=(1.0, 0.0, 1.0)), "deviation must be positive"),
        (lambda: BevGridConfig(rows=0), "rows must be at least 1, got 0"),
        (lambda: BevGridConfig(range=(0.0, 0.0, 0.0, -1.0, 1.0, 3.0)), "three minima, then three larger maxima"),
        (lambda: BevGridConfig(range=(0.0, 0.0, 0.0, 1.0, 1.0, 1.0)), "more than 1 m high"),
        (lambda: EncoderConfig(image_points=6), "image_points 6 must be a multiple of pillar_points 4"),
        (lambda: TemporalConfig(frames=(0, -1)), "frames must ascend"),
        (lambda: TemporalConfig(interval_s=0.0), "interval_s must be positive"),
        (lambda: DecoderConfig(groups=0), "groups must be at least 1"),
        (lambda: ModelConfig(name="x", cameras=()), "cameras must be at least one distinct name"),
        (lambda: ModelConfig(name="x", cameras=("a", "a")), "cameras must be at least one distinct name"),
        (lambda: ModelConfig(name="x", channels=100), "channels 100 must be a multiple of the 8 heads"),
        (lambda: ModelConfig(name="x", score_threshold=1.5), "score_threshold must lie in 0..1"),
        (lambda: ModelConfig(name="x", max_detections=9001), "max_detections 9001 is more than 900 queries"),
        (lambda: ModelConfig(name="x", pyramid_levels=4), "perspective.strides must have pyramid_levels = 4"),
    ],
)
def test_configuration_errors_name_the_value(broken, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        broken()
