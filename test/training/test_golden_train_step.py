"""One temporal training step with query groups and both losses against the official code (golden case 5c)."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import golden_cases
import pytest
import torch
import torch.nn.functional as F
from golden_truth import bev_truth, perspective_truth
from official_config import model_config
from torch import Tensor

from bevformer_ros.model.checkpoint import NOT_IN_THE_NETWORK, load_weights, name_from_official, weights_from_official
from bevformer_ros.model.network import BEVFormerV2, build_network
from bevformer_ros.training.bev_loss import BevLoss, bev_loss
from bevformer_ros.training.config import BevLossConfig, PerspectiveLossConfig
from bevformer_ros.training.perspective_loss import PerspectiveLoss, perspective_loss

# Below it a gradient's norm is rounding: a parameter that the loss does not reach has one of 1e-7.
ZERO_GRADIENT_NORM = 1e-3
PERSPECTIVE_NAMES = {
    "classes": "loss_cls_mono",
    "boxes2d": "loss_box2d_reg_mono",
    "centerness": "loss_centerness_mono",
    "rotations": "loss_box3d_quat_mono",
    "centers": "loss_box3d_proj_ctr_mono",
    "depths": "loss_box3d_depth_mono",
    "sizes": "loss_box3d_size_mono",
    "confidences": "loss_conf3d_mono",
    "attributes": "loss_attr_mono",
    "speeds": "loss_speed_mono",
}


class Step(NamedTuple):
    """One training step. augmentation: "noaug" or "aug", which names the expected tensors."""

    network: BEVFormerV2
    expected: dict[str, Tensor]
    gradient_norms: dict[str, float]
    gradient_tolerance: float
    bevs: Tensor
    fused: Tensor
    bev: BevLoss
    perspective: PerspectiveLoss


@pytest.fixture(scope="module", params=["noaug", "aug"])
def augmentation(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module", params=golden_cases.variants("case5c_full_train_step"))
def step(request: pytest.FixtureRequest, augmentation: str) -> Step:
    path: Path = request.param
    tensors, description = golden_cases.load(path)
    source, official = golden_cases.load(path.with_name(f"{description['uses_weights_and_inputs_of']}.safetensors"))
    network = network_without_dropout(source, official)
    truth = tensors["inputs.gt.boxes_lidar_bottom_center"]
    flipped, bev_warp = False, None
    if augmentation == "aug":
        truth = tensors["outputs.aug.gt_boxes_after"]
        flipped, bev_warp = True, tensors["inputs.aug.bda_mat"]

    frames = official["frames"]
    features, bevs = encode_frames(network, golden_cases.part(source, "inputs."), frames, flipped, bev_warp)
    fused = network.fuse(bevs)
    config = network.config
    objects = bev_truth(truth, tensors["inputs.gt.labels"])
    bev = bev_loss(network.decode(fused), [objects], BevLossConfig(), config.decoder.groups)
    perspective = perspective_step(network, features, tensors)
    (bev.total + perspective.total).backward()
    return Step(
        network,
        golden_cases.part(tensors, f"outputs.{augmentation}."),
        description["grad_norms"][augmentation],
        gradient_tolerance(description["fp32_vs_fp64"][augmentation]),
        bevs,
        fused,
        bev,
        perspective,
    )


def gradient_tolerance(rounding: dict[str, Any]) -> float:
    """Ten times what the official code's own float32 and float64 differ by in any gradient's norm, and at least 1e-3.

    A ReLU whose input is zero but for rounding passes its gradient on one processor and stops it on the next. Batch
    norms of a few channels, sums of many such gradients that cancel, move most. How many of these inputs a case has is
    a property of the case, and the official code's difference measures it.
    """
    name = "grad_norm_relative_max" if "grad_norm_relative_max" in rounding else "grad_norm_rel_diff_max"
    return max(10 * rounding[name], 1e-3)


def network_without_dropout(tensors: dict[str, Tensor], description: dict[str, Any]) -> BEVFormerV2:
    official = golden_cases.part(tensors, "weights.")
    cameras = len(official["pts_bbox_head.transformer.cams_embeds"])
    network = build_network(
        replace(model_config(description["model_cfg"], tensors["inputs.img"], cameras), dropout=0.0)
    )
    load_weights(network, weights_from_official(official))
    return network


def encode_frames(
    network: BEVFormerV2, inputs: dict[str, Tensor], frames: list[int], flipped: bool, bev_warp: Tensor | None
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Features of the current frame and BEV maps (B, T, Q, C); history in eval mode and without gradient."""
    features: tuple[Tensor, ...] = ()
    bevs = []
    for index, frame in enumerate(frames):
        images = inputs["img"][:, index]
        network.train(frame == 0)
        with torch.set_grad_enabled(frame == 0):
            features = network.image_features(images.flip(-1) if flipped else images)
            if flipped:
                features = tuple(level.flip(-1) for level in features)
            bev = network.encode_bev(
                network.bev_encoder.flatten(features), inputs[f"frame{frame}.lidar2img"].unsqueeze(0), None
            )
            bevs.append(bev if bev_warp is None else warp_bev(bev, bev_warp, network))
    assert frames[-1] == 0
    return features, torch.stack(bevs, dim=1)


def warp_bev(bev: Tensor, matrix: Tensor, network: BEVFormerV2) -> Tensor:
    """BEV map (B, Q, C) in the augmented frame; matrix: (3, 3) that takes augmented to original positions."""
    grid = network.config.bev
    x = (torch.arange(grid.columns) + 0.5) / grid.columns * 2 - 1
    y = (torch.arange(grid.rows) + 0.5) / grid.rows * 2 - 1
    cells = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)  # (rows, columns, 2)
    plane = bev.transpose(1, 2).unflatten(-1, (grid.rows, grid.columns))
    warped = F.grid_sample(plane, (cells @ matrix[:2, :2].T).expand(len(bev), -1, -1, -1), align_corners=False)
    return warped.flatten(2).transpose(1, 2)


def perspective_step(network: BEVFormerV2, features: tuple[Tensor, ...], tensors: dict[str, Tensor]) -> PerspectiveLoss:
    cameras = tensors["inputs.mono_cams"]
    head = network.perspective_head
    assert head is not None
    levels = head([level[0, cameras] for level in features])
    truth = [perspective_truth(tensors, f"inputs.mono{image}.") for image in range(len(cameras))]
    return perspective_loss(levels, truth, tensors["inputs.mono_intrinsics"], head.config, PerspectiveLossConfig())


def test_golden_features(step: Step) -> None:
    for index, frame in enumerate(step.network.config.temporal.frames):
        name = f"bev_history.{frame}" if frame else "bev_current"
        golden_cases.assert_equal(step.bevs[:, index], step.expected[name], name)
    golden_cases.assert_equal(step.fused, step.expected["bev_fused"], "bev_fused")


def test_golden_losses(step: Step) -> None:
    last = len(step.bev.classes) - 1
    for layer in range(last + 1):
        prefix = "" if layer == last else f"d{layer}."
        golden_cases.assert_equal(step.bev.classes[layer], step.expected[f"{prefix}loss_cls"], f"{prefix}loss_cls")
        golden_cases.assert_equal(step.bev.boxes[layer], step.expected[f"{prefix}loss_bbox"], f"{prefix}loss_bbox")
    for name, official in PERSPECTIVE_NAMES.items():
        golden_cases.assert_equal(getattr(step.perspective, name), step.expected[official], official)
    golden_cases.assert_equal(step.bev.total + step.perspective.total, step.expected["total"], "total")


def test_golden_gradients(step: Step) -> None:
    parameters = dict(step.network.named_parameters())
    for official, expected in golden_cases.part(step.expected, "grad.").items():
        actual = parameters[name_from_official(official)].grad
        assert actual is not None, official
        assert (actual - expected).norm() <= step.gradient_tolerance * expected.norm(), official


def test_golden_gradient_norms(step: Step) -> None:
    """Each within the case's tolerance; half of them far closer, on any processor."""
    parameters = dict(step.network.named_parameters())
    errors = []
    for official, norm in step.gradient_norms.items():
        if official not in NOT_IN_THE_NETWORK:
            gradient = parameters[name_from_official(official)].grad
            assert gradient is not None, official
            error = abs(gradient.norm().item() - norm)
            assert error <= step.gradient_tolerance * max(norm, ZERO_GRADIENT_NORM), official
            errors.append(error / max(norm, ZERO_GRADIENT_NORM))
    assert statistics.median(errors) <= 1e-3


def test_golden_statistics_of_batch_norm_move_with_the_current_frame_only(step: Step) -> None:
    for official, expected in golden_cases.part(step.expected, "after.").items():
        actual = step.network.get_buffer(name_from_official(official))
        golden_cases.assert_equal(actual, expected, official)
