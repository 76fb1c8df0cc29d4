"""Target assignment and loss of the perspective head against the official code (golden case 5b, head of case 3)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import golden_cases
import pytest
import torch
from golden_truth import official_attributes, perspective_truth
from official_config import perspective_config
from torch import Tensor

from bevformer_ros.model.checkpoint import weights_from_official
from bevformer_ros.model.perspective_head import PerspectiveHead
from bevformer_ros.training.config import PerspectiveLossConfig
from bevformer_ros.training.perspective_loss import perspective_loss
from bevformer_ros.training.perspective_targets import PerspectiveTruth, assign_targets

GRADIENT_TOLERANCE = 1e-3
NAMES = {
    "classes": "loss_cls",
    "boxes2d": "loss_box2d_reg",
    "centerness": "loss_centerness",
    "rotations": "loss_box3d_quat",
    "centers": "loss_box3d_proj_ctr",
    "depths": "loss_box3d_depth",
    "sizes": "loss_box3d_size",
    "confidences": "loss_conf3d",
    "attributes": "loss_attr",
    "speeds": "loss_speed",
}


class Case(NamedTuple):
    head: PerspectiveHead
    features: list[Tensor]
    intrinsics: Tensor
    truth: list[PerspectiveTruth]
    expected: dict[str, Tensor]


@pytest.fixture(params=golden_cases.variants("case5b_perspective_losses"))
def case(request: pytest.FixtureRequest) -> Case:
    path: Path = request.param
    tensors, description = golden_cases.load(path)
    source, official = golden_cases.load(path.with_name(f"{description['uses_weights_and_feats_of']}.safetensors"))
    head = PerspectiveHead(perspective_config(official["head_cfg"]), official["head_cfg"]["in_channels"])
    weights = weights_from_official(golden_cases.part(source, "weights."))
    head.load_state_dict(golden_cases.part(weights, "perspective_head."))
    return Case(
        head,
        [source[f"inputs.feat.{level}"].requires_grad_() for level in range(len(head.config.strides))],
        tensors["inputs.intrinsics"],
        [perspective_truth(tensors, f"inputs.img{image}.") for image in range(len(tensors["inputs.intrinsics"]))],
        golden_cases.part(tensors, "outputs."),
    )


def test_golden_targets(case: Case) -> None:
    shapes = [(feature.shape[-2], feature.shape[-1]) for feature in case.features]
    targets = assign_targets(shapes, case.head.config.strides, case.truth, PerspectiveLossConfig())
    expected = golden_cases.part(case.expected, "targets.")
    places = expected["pos_inds"]
    assert torch.equal(targets.places, places)
    assert torch.equal(targets.objects, expected["target_inds"][places])
    assert torch.equal(targets.images, expected["im_inds"][places])
    assert torch.equal(targets.locations, expected["locations"][places])
    assert torch.equal(targets.truth.labels[targets.objects], expected["labels"][places])
    golden_cases.assert_equal(targets.sides, expected["box2d_reg_targets"][places], "sides")
    golden_cases.assert_equal(targets.centerness, case.expected["bn_eval.centerness_targets"], "centerness")
    attributes = targets.truth.attributes[targets.objects]
    assert torch.equal(attributes, official_attributes(expected["attributes"][places]))
    speeds = targets.truth.speeds[targets.objects].nan_to_num(nan=-1.0)
    golden_cases.assert_equal(speeds, expected["speeds_nan_as_minus1"][places], "speeds")


@pytest.mark.parametrize("mode", ["bn_eval", "bn_train"])
def test_golden_perspective_loss(case: Case, mode: str) -> None:
    levels = case.head.train(mode == "bn_train")(case.features)
    loss = perspective_loss(levels, case.truth, case.intrinsics, case.head.config, PerspectiveLossConfig())
    loss.total.backward()

    expected = golden_cases.part(case.expected, f"{mode}.")
    for name, official in NAMES.items():
        golden_cases.assert_equal(getattr(loss, name), expected[official], official)
    for level, feature in enumerate(case.features):
        assert feature.grad is not None
        golden_cases.assert_equal(
            feature.grad, expected[f"grad_feat.{level}"], f"gradient, level {level}", GRADIENT_TOLERANCE
        )
