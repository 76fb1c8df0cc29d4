"""One backbone of each family of timm, in the whole network."""

from __future__ import annotations

import copy
import sys
from dataclasses import asdict, replace
from importlib.util import find_spec

import pytest
import torch
import yaml
from support import REPOSITORY
from torch import Tensor

from bevformer_ros.config import from_dict, load_yaml
from bevformer_ros.inference.network_preparation import prepare_for_inference
from bevformer_ros.model.config import ImageConfig, ModelConfig, TimmConfig
from bevformer_ros.model.network import BEVFormerV2, NetworkInputs, build_network
from bevformer_ros.model.timm_backbone import TimmBackbone, import_timm, load_pretrained

pytestmark = pytest.mark.skipif(
    not all(map(find_spec, ("timm", "torchvision"))), reason="needs timm and torchvision, which `make env` installs"
)

IMAGE = ImageConfig(height=64)
IMAGENET = {"mean": [103.53, 116.28, 123.675], "deviation": [57.375, 57.12, 58.395]}
FAMILIES = ("convnext_atto", "ese_vovnet19b_dw", "dla46_c", "swin_tiny_patch4_window7_224", "resnet18")


def config_with(backbone: TimmConfig, image: ImageConfig = IMAGE) -> ModelConfig:
    shipped = load_yaml(ModelConfig, REPOSITORY / "config" / "models" / "tiny.yaml")
    return replace(
        shipped,
        image=image,
        cameras=("CAM_FRONT",),
        channels=16,
        backbone=backbone,
        bev=replace(shipped.bev, rows=10, columns=12),
        decoder=replace(shipped.decoder, queries=20),
    )


def network_with(name: str) -> BEVFormerV2:
    torch.manual_seed(0)
    return build_network(config_with(TimmConfig(name)))


def noise(config: ModelConfig, batch: int = 2) -> Tensor:
    width, height = config.image.padded_size
    return 50 * torch.randn(batch, 1, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_builds_and_learns(name: str) -> None:
    network = network_with(name)
    features = network.image_features(noise(network.config))
    assert [tuple(level.shape) for level in features] == [
        (2, 1, 16, height, width) for height, width in ((8, 20), (4, 10), (2, 5), (1, 3), (1, 2))
    ]
    sum(level.sin().sum() for level in features).backward()
    missed = [
        key
        for part in (network.backbone, network.neck)
        for key, parameter in part.named_parameters()
        if parameter.grad is None
    ]
    assert missed == []


def test_the_whole_detector_learns() -> None:
    network = network_with("swin_tiny_patch4_window7_224")
    width, height = network.config.image.padded_size
    image_from_bev = torch.tensor([[60.0, width / 2, 0, 0], [0, height / 2, -60, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    inputs = NetworkInputs(
        noise(network.config),
        torch.ones(2, 1, dtype=torch.bool),
        torch.eye(3).expand(2, 1, 3, 3),
        torch.eye(4).expand(2, 1, 4, 4),
        image_from_bev.expand(2, 1, 4, 4),
    )
    output = network(inputs)
    (output.class_logits.sin().sum() + output.box_codes.sin().sum()).backward()
    assert all(parameter.grad is not None for parameter in network.backbone.parameters())
    assert all(parameter.grad.isfinite().all() for parameter in network.backbone.parameters())


def test_a_detector_can_be_copied_and_its_configuration_written() -> None:
    """Averages of weights are copies; checkpoints hold the configuration as plain data."""
    network = network_with("resnet18")
    twin = copy.deepcopy(network)
    assert twin.state_dict().keys() == network.state_dict().keys()
    assert from_dict(ModelConfig, lists_for_tuples(asdict(network.config))) == network.config


def lists_for_tuples(value: object) -> object:
    if isinstance(value, dict):
        return {key: lists_for_tuples(entry) for key, entry in value.items()}
    return [lists_for_tuples(entry) for entry in value] if isinstance(value, tuple) else value


def test_channels_arrive_as_rgb() -> None:
    backbone = TimmBackbone(TimmConfig("resnet18"), IMAGE).eval()
    images = noise(config_with(TimmConfig("resnet18")))[0]
    with torch.no_grad():
        for ours, theirs in zip(backbone(images), backbone.body(images[:, [2, 1, 0]]), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["dla46_c", "convnext_atto"])
def test_reduced_precision(name: str) -> None:
    network = prepare_for_inference(network_with(name), torch.device("cpu"), torch.bfloat16)
    with torch.inference_mode():
        assert {level.dtype for level in network.image_features(noise(network.config))} == {torch.bfloat16}


def test_published_weights_are_fetched_only_when_training_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    image = from_dict(ImageConfig, {"height": 64, **IMAGENET})
    timm = import_timm("resnet18")
    create, published = timm.create_model, []

    def fake_download(name: str, pretrained: bool = False, **arguments: object) -> torch.nn.Module:
        model = create(name, **arguments)
        if pretrained:
            published.append(model)
        return model

    monkeypatch.setattr(timm, "create_model", fake_download)
    network = build_network(config_with(TimmConfig("resnet18.a1_in1k", pretrained=True), image))
    assert published == []
    load_pretrained(network.backbone)
    (source,) = published
    for name, tensor in network.backbone.body.state_dict().items():
        torch.testing.assert_close(tensor, source.state_dict()[name], rtol=0, atol=0)
    load_pretrained(build_network(config_with(TimmConfig("resnet18"))).backbone)
    assert len(published) == 1


def test_the_documented_configuration_is_accepted() -> None:
    text = (REPOSITORY / "docs" / "backbones.md").read_text(encoding="utf-8")
    config = from_dict(ModelConfig, yaml.safe_load(text.partition("```yaml")[2].partition("```")[0]))
    assert isinstance(config.backbone, TimmConfig) and config.backbone.pretrained
    TimmBackbone(config.backbone, config.image)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (TimmConfig("resnet_18"), "has no model 'resnet_18'; similar are .*resnet18"),
        (TimmConfig("resnet18.none"), "no weights 'none' of resnet18, but .*a1_in1k"),
        (TimmConfig("vit_tiny_patch16_224"), r"maps at strides \[16, 16, 16\], needed are \[8, 16, 32\]"),
        (TimmConfig("darknet17", pretrained=True), "no weights of 'darknet17'; set pretrained to false"),
        (TimmConfig("resnet18", pretrained=True), r"trained with `image: \{mean: \[103.53, 116.28, 123.675\], dev"),
    ],
)
def test_what_is_refused(config: TimmConfig, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        build_network(config_with(config))


def test_a_missing_timm_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match="'resnet18' is one of timm's, which cannot be imported .*: pip install timm"):
        build_network(config_with(TimmConfig("resnet18")))
