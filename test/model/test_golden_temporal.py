"""The temporal, group-DETR network against the official code, also with frames missing (golden case 2)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

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
    """One variant; bevs: frame index to BEV map, every one encoded with its images seen from the current frame."""

    network: BEVFormerV2
    inputs: dict[str, Tensor]
    expected: dict[str, Tensor]
    bevs: dict[int, Tensor]


@pytest.fixture(scope="module", params=golden_cases.variants("case2_temporal"))
def run(request: pytest.FixtureRequest) -> Run:
    path: Path = request.param
    tensors, description = golden_cases.load(path)
    network = golden_network(tensors, description)
    inputs = golden_cases.part(tensors, "inputs.")
    bevs = {}
    with torch.no_grad():
        for index, frame in enumerate(description["frames"]):
            features = network.image_features(inputs["img"][:, index])
            image_from_bev = inputs[f"frame{frame}.lidar2img"].unsqueeze(0)
            bevs[frame] = network.encode_bev(network.bev_encoder.flatten(features), image_from_bev, None)
    return Run(network, inputs, golden_cases.part(tensors, "outputs."), bevs)


def fuse(run: Run, missing: frozenset[int] = frozenset()) -> Tensor:
    """Fused BEV map; a missing frame repeats its neighbour on the side of the current one."""
    filled = dict(run.bevs)
    for frame in sorted(missing, key=abs):
        filled[frame] = filled[frame + 1 if frame < 0 else frame - 1]
    with torch.no_grad():
        return run.network.fuse(torch.stack([filled[frame] for frame in run.network.config.temporal.frames], dim=1))


def decode(run: Run, bev: Tensor) -> DecoderOutput:
    with torch.no_grad():
        return run.network.decode(bev)


def test_projection_of_every_frame(run: Run) -> None:
    config = run.network.config
    points = pillar_points(config.bev, config.encoder.pillar_points, torch.device("cpu"))
    height, width = run.inputs["img"].shape[-2:]
    for frame in run.bevs:
        image_from_bev = run.inputs[f"frame{frame}.lidar2img"].unsqueeze(0)
        projection = project_pillars(points, image_from_bev, (height, width), None)
        visible = run.expected[f"frame{frame}.bev_mask"].bool().transpose(0, 1)
        expected = run.expected[f"frame{frame}.reference_points_cam"].transpose(0, 1)
        assert torch.equal(projection.visible, visible), f"frame {frame}"
        golden_cases.assert_equal(projection.points[visible], expected[visible], f"frame{frame}.reference_points_cam")


def test_bev_of_every_frame(run: Run) -> None:
    for frame, bev in run.bevs.items():
        name = f"bev_history.{frame}" if frame else "bev_current"
        golden_cases.assert_equal(bev, run.expected[name], name)


def test_fusion(run: Run) -> None:
    golden_cases.assert_equal(fuse(run), run.expected["bev_fused"], "bev_fused")


def test_decoder_uses_the_first_group(run: Run) -> None:
    decoded = decode(run, fuse(run))
    golden_cases.assert_equal(decoded.class_logits, run.expected["all_cls_scores"], "all_cls_scores")
    golden_cases.assert_equal(decoded.box_codes, run.expected["all_bbox_preds"], "all_bbox_preds")
    best = decode_boxes(decoded.class_logits[-1], decoded.box_codes[-1], run.network.config.max_detections, 0.0)
    expected = tuple(run.expected[f"coder.{name}"] for name in ("bboxes", "scores", "labels"))
    assert_same_detections(official_rows(best), expected, "coder")


def test_missing_frames(run: Run) -> None:
    cases = sorted({name.partition(".")[0] for name in run.expected if re.match(r"miss\d+\.", name)})
    for case in cases:
        bev = fuse(run, frozenset(-int(digit) for digit in case.removeprefix("miss")))
        golden_cases.assert_equal(bev, run.expected[f"{case}.bev_fused"], f"{case}.bev_fused")
        decoded = decode(run, bev)
        golden_cases.assert_equal(decoded.class_logits, run.expected[f"{case}.all_cls_scores"], case)
        golden_cases.assert_equal(decoded.box_codes, run.expected[f"{case}.all_bbox_preds"], case)
