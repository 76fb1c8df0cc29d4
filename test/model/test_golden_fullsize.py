"""The released t1-base at full size against the official code (golden case 8). Slow: minutes; run with -m slow."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import golden_cases
import numpy as np
import pytest
import torch
from golden_detections import assert_same_detections, official_rows
from support import REPOSITORY
from torch import Tensor

from bevformer_ros.config import load_yaml
from bevformer_ros.model.bev_encoder import pillar_points, project_pillars
from bevformer_ros.model.box_coding import decode_boxes
from bevformer_ros.model.checkpoint import NOT_IN_THE_NETWORK, load_weights, name_from_official
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.model.network import BEVFormerV2, build_network

BASE = REPOSITORY / "config" / "models" / "bevformerv2_r50_t1_base.yaml"
ROWS_BETWEEN_SAMPLES = 37


def weights_and_images(
    network: BEVFormerV2, official_names: list[str], case: dict[str, Any], stored: dict[str, Tensor]
) -> tuple[dict[str, Tensor], Tensor]:
    """The case stores a formula for weights and images, to be run, and the weights that it does not give."""
    formula: dict[str, Any] = {"np": np, "zlib": zlib}
    exec(case["formula_source"], formula)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    weights = {}
    for official in official_names:
        name = name_from_official(official)
        if f"weights.{official}" in stored:
            weights[name] = stored[f"weights.{official}"]
            continue
        values, _ = formula["formula"](official, shapes[name], None)
        weights[name] = torch.from_numpy(np.asarray(values)) * case["lateral_conv_factors"].get(official, 1)
        weights[name] = weights[name].to(network.state_dict()[name].dtype)
    return weights, torch.from_numpy(formula["images"](*case["input"][2:]))


def sampled(level: Tensor, shape: torch.Size) -> Tensor:
    """Every so many channels, rows and columns, as the case stores feature maps."""
    steps = [math.ceil(whole / part) for whole, part in zip(level.shape[1:], shape[1:], strict=True)]
    return level[:, :: steps[0], :: steps[1], :: steps[2]]


@pytest.mark.slow
@pytest.mark.parametrize("path", golden_cases.variants("case8"))
def test_full_size(path: Path) -> None:
    tensors, case = golden_cases.load(path)
    keys = json.loads(path.with_name("case6_state_dict_keys.json").read_text(encoding="utf-8"))
    official_names = [name for name in keys["configs"][case["config"]]["keys"] if name not in NOT_IN_THE_NETWORK]
    network = build_network(load_yaml(ModelConfig, BASE)).eval()
    weights, images = weights_and_images(network, official_names, case, tensors)
    load_weights(network, weights)
    expected = golden_cases.part(tensors, "outputs.")
    golden_cases.assert_equal(images[:, :, ::80, ::100], tensors["inputs.img_check_crop"], "images")

    image_from_bev = tensors["inputs.lidar2img"].unsqueeze(0)
    height, width = images.shape[-2:]
    points = pillar_points(network.config.bev, network.config.encoder.pillar_points, torch.device("cpu"))
    visible = project_pillars(points, image_from_bev, (height, width), None).visible
    assert np.packbits(visible.transpose(0, 1).numpy()).tolist() == expected["bev_mask_packed"].tolist()

    with torch.no_grad():
        features = network.image_features(images.unsqueeze(0))
        for index, level in enumerate(features):
            sample = expected[f"fpn.{index}.sample"]
            golden_cases.assert_equal(sampled(level[0], sample.shape), sample, f"fpn.{index}")
            mean = level[0].double().mean(dim=(0, 2, 3))
            golden_cases.assert_equal(mean, expected[f"fpn.{index}.mean_per_channel"], f"fpn.{index} mean")
        bev = network.encode_bev(network.bev_encoder.flatten(features), image_from_bev, None)
        golden_cases.assert_equal(bev[0, ::ROWS_BETWEEN_SAMPLES], expected["bev_embed.sample_every_37th"], "bev_embed")
        golden_cases.assert_equal(bev[0].double().mean(dim=0), expected["bev_embed.mean_per_channel"], "bev_embed mean")
        decoded = network.decode(network.fuse(bev.unsqueeze(1)))
    golden_cases.assert_equal(decoded.class_logits[[0, -1]], expected["all_cls_scores"], "all_cls_scores")
    golden_cases.assert_equal(decoded.box_codes[[0, -1]], expected["all_bbox_preds"], "all_bbox_preds")
    best = decode_boxes(decoded.class_logits[-1], decoded.box_codes[-1], network.config.max_detections, 0.0)
    boxes, scores, labels = official_rows(best)
    boxes[:, 2] -= boxes[:, 5] / 2
    final = tuple(expected[f"final.{name}"] for name in ("boxes_3d", "scores_3d", "labels_3d"))
    assert_same_detections((boxes, scores, labels), final, "final")
