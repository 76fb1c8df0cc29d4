"""The single-frame network against the official code, stage by stage (golden case 1)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import golden_cases
import pytest
import torch
from golden_detections import assert_same_detections, official_rows
from official_config import golden_network
from torch import Tensor

from bevformer_ros.model.bev_encoder import pillar_points, project_pillars
from bevformer_ros.model.box_coding import decode_boxes
from bevformer_ros.model.decoder import DecoderOutput
from bevformer_ros.model.network import BEVFormerV2


class Run(NamedTuple):
    """One variant, run once for all tests of this file."""

    network: BEVFormerV2
    description: dict[str, Any]
    images: Tensor
    image_from_bev: Tensor
    features: tuple[Tensor, ...]
    encoder_layers: list[Tensor]
    bev: Tensor
    decoder_states: list[Tensor]
    decoded: DecoderOutput
    expected: dict[str, Tensor]


@pytest.fixture(scope="module", params=golden_cases.variants("case1_single_frame"))
def run(request: pytest.FixtureRequest) -> Run:
    path: Path = request.param
    tensors, description = golden_cases.load(path)
    network = golden_network(tensors, description)
    encoder_layers: list[Tensor] = []
    decoder_states: list[Tensor] = []
    for layer in network.bev_encoder.layers:
        layer.register_forward_hook(lambda _module, _inputs, output: encoder_layers.append(output))
    for layer in network.decoder.layers:
        layer.register_forward_hook(lambda _module, _inputs, output: decoder_states.append(output))
    images = tensors["inputs.img"][:, -1]
    image_from_bev = tensors["inputs.lidar2img"].unsqueeze(0)
    with torch.no_grad():
        features = network.image_features(images)
        bev = network.encode_bev(network.bev_encoder.flatten(features), image_from_bev, None)
        decoded = network.decode(network.fuse(bev.unsqueeze(1)))
    return Run(
        network,
        description,
        images,
        image_from_bev,
        features,
        encoder_layers,
        bev,
        decoder_states,
        decoded,
        golden_cases.part(tensors, "outputs."),
    )


def test_backbone(run: Run) -> None:
    with torch.no_grad():
        levels = run.network.backbone(run.images.flatten(0, 1))
    for index, level in enumerate(levels):
        golden_cases.assert_equal(level, run.expected[f"backbone.{index}"], f"backbone.{index}")


def test_neck(run: Run) -> None:
    for index, level in enumerate(run.features):
        golden_cases.assert_equal(level[0], run.expected[f"fpn.{index}"], f"fpn.{index}")


def test_projection_of_the_pillars(run: Run) -> None:
    config = run.network.config
    points = pillar_points(config.bev, config.encoder.pillar_points, torch.device("cpu"))
    height, width = run.images.shape[-2:]
    projection = project_pillars(points, run.image_from_bev, (height, width), None)
    visible = run.expected["bev_mask"].bool().transpose(0, 1)  # (B, N, Q, Z)
    expected = run.expected["reference_points_cam"].transpose(0, 1)
    assert torch.equal(projection.visible, visible)
    golden_cases.assert_equal(projection.points[visible], expected[visible], "reference_points_cam")


def test_bev_encoder(run: Run) -> None:
    for index, layer in enumerate(run.encoder_layers):
        golden_cases.assert_equal(layer, run.expected[f"encoder_layer.{index}"], f"encoder_layer.{index}")
    golden_cases.assert_equal(run.bev, run.expected["bev_embed"].transpose(0, 1), "bev_embed")


def test_decoder(run: Run) -> None:
    states = run.expected["decoder_states"].transpose(1, 2)  # (L, B, Q, C)
    golden_cases.assert_equal(torch.stack(run.decoder_states), states, "decoder_states")
    low, high = torch.tensor(run.network.config.bev.range).view(2, 3)
    references = (run.decoded.box_codes[..., [0, 1, 4]] - low) / (high - low)
    golden_cases.assert_equal(references, run.expected["decoder_references"], "decoder_references")
    golden_cases.assert_equal(run.decoded.class_logits, run.expected["all_cls_scores"], "all_cls_scores")
    golden_cases.assert_equal(run.decoded.box_codes, run.expected["all_bbox_preds"], "all_bbox_preds")


def test_boxes(run: Run) -> None:
    config = run.network.config
    decoded = decode_boxes(run.decoded.class_logits[-1], run.decoded.box_codes[-1], config.max_detections, 0.0)
    boxes, scores, labels = official_rows(decoded)
    coder = tuple(run.expected[f"coder.{name}"] for name in ("bboxes", "scores", "labels"))
    assert_same_detections((boxes, scores, labels), coder, "coder")
    bottom = boxes.clone()
    bottom[:, 2] -= boxes[:, 5] / 2
    final = tuple(run.expected[f"final.{name}"] for name in ("boxes_3d", "scores_3d", "labels_3d"))
    assert_same_detections((bottom, scores, labels), final, "final")


def test_boxes_above_a_threshold(run: Run) -> None:
    """The official coder lowers its threshold until something passes; ours must equal what truly passes."""
    coder = run.description["alt_coder"]
    threshold = coder["score_threshold"]
    decoded = decode_boxes(run.decoded.class_logits[-1], run.decoded.box_codes[-1], coder["max_num"], threshold)
    boxes, scores, labels = official_rows(decoded)
    low, high = torch.tensor(coder["post_center_range"]).view(2, 3)
    inside = ((boxes[:, :3] >= low) & (boxes[:, :3] <= high)).all(dim=-1)
    expected = tuple(run.expected[f"alt_coder.{name}"] for name in ("bboxes", "scores", "labels"))
    passes = expected[1] > threshold
    assert_same_detections(
        (boxes[inside], scores[inside], labels[inside]), tuple(part[passes] for part in expected), "alt_coder"
    )
