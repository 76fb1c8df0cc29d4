"""The perspective head against the official code: raw outputs and decoded boxes (golden case 3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import golden_cases
import pytest
import torch
from official_config import perspective_config
from torch import Tensor

from bevformer_ros.model.checkpoint import weights_from_official
from bevformer_ros.model.config import ProposalConfig
from bevformer_ros.model.perspective_boxes import PerspectiveBoxes, PerspectiveDecoder, matrix_from_quaternion
from bevformer_ros.model.perspective_head import PerspectiveHead, PerspectiveLevel, SharedConv

VARIANTS = golden_cases.variants("case3_perspective_head")
RAW_NAMES = {
    "class_logits": "logits",
    "box2d": "box2d_reg",
    "centerness": "centerness",
    "quaternions": "box3d_quat",
    "center_offsets": "box3d_ctr",
    "depths": "box3d_depth",
    "sizes": "box3d_size",
    "confidences": "box3d_conf",
    "attributes": "attr_logits",
    "speeds": "speed",
}
# The official order of a box's corners, in halves of length, width, height.
CORNERS = torch.tensor(
    [[1, 1, 1], [1, -1, 1], [1, -1, -1], [1, 1, -1], [-1, 1, 1], [-1, -1, 1], [-1, -1, -1], [-1, 1, -1]]
)


def load_head(tensors: dict[str, Tensor], official: dict[str, Any]) -> PerspectiveHead:
    head = PerspectiveHead(perspective_config(official), official["in_channels"])
    weights = weights_from_official(golden_cases.part(tensors, "weights."))
    head.load_state_dict(golden_cases.part(weights, "perspective_head."))
    return head.eval()


@torch.no_grad()
@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("path", VARIANTS)
def test_raw_outputs_golden(path: Path, folded: bool) -> None:
    tensors, description = golden_cases.load(path)
    head = load_head(tensors, description["head_cfg"])
    for module in list(head.modules()):
        if folded and isinstance(module, PerspectiveHead | SharedConv):
            module.fold()
    features = [tensors[f"inputs.feat.{level}"] for level in range(len(head.config.strides))]

    for level, output in enumerate(head(features)):
        for name, values in output._asdict().items():
            expected = tensors[f"outputs.raw.{RAW_NAMES[name]}.{level}"]
            golden_cases.assert_equal(values, expected, f"{name}, level {level}")


@pytest.mark.parametrize("path", VARIANTS)
def test_leaving_out_the_finest_level_changes_no_other(path: Path) -> None:
    tensors, description = golden_cases.load(path)
    head = load_head(tensors, description["head_cfg"])
    features = [tensors[f"inputs.feat.{level}"] for level in range(len(head.config.strides))]

    with torch.no_grad():
        everything, coarse = head(features), head(features, first_level=1)

    assert len(coarse) == len(everything) - 1
    for expected, actual in zip(everything[1:], coarse, strict=True):
        assert all(torch.equal(left, right) for left, right in zip(expected, actual, strict=True))


@pytest.mark.parametrize("path", VARIANTS)
def test_decoded_boxes_golden(path: Path) -> None:
    tensors, description = golden_cases.load(path)
    head = perspective_config(description["head_cfg"])
    raw = [
        PerspectiveLevel(**{name: tensors[f"outputs.raw.{official}.{level}"] for name, official in RAW_NAMES.items()})
        for level in range(len(head.strides))
    ]
    decodings = [name for name in description if name.startswith("decode")]
    assert decodings

    for decoding in decodings:
        settings = description[decoding]
        assert settings["score_key_for_nms"] == "scores_3d"
        config = ProposalConfig(
            score_threshold=settings["pre_nms_thresh"],
            threshold_with_centerness=settings["thresh_with_ctr"],
            candidates_per_level=settings["pre_nms_topk"],
            image_nms_iou=settings["nms_thresh"],
            boxes_per_image=settings["post_nms_topk"],
        )
        decoder = PerspectiveDecoder(head, config)
        candidates = decoder.candidates(raw, tensors["inputs.intrinsics"])
        final = decoder.suppress(candidates)
        for image in range(len(tensors["inputs.intrinsics"])):
            prefix = f"outputs.{decoding}.img{image}"
            expected = golden_cases.part(tensors, f"{prefix}.pre_nms.")
            assert_same_boxes(*sorted_by_place(valid_boxes(candidates, image), expected), f"{prefix}.pre_nms")
            expected = golden_cases.part(tensors, f"{prefix}.final.")
            assert_same_boxes(valid_boxes(final, image), expected, f"{prefix}.final")


def valid_boxes(boxes: PerspectiveBoxes, image: int) -> dict[str, Tensor]:
    return {name: values[image][boxes.valid[image]] for name, values in boxes._asdict().items()}


def sorted_by_place(
    actual: dict[str, Tensor], expected: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Both in the order of level, row, column and class: the official order before suppression is not defined."""

    def order(levels: Tensor, locations: Tensor, labels: Tensor) -> list[int]:
        keys = [levels, locations[:, 1], locations[:, 0], labels]
        rows = list(zip(*(key.tolist() for key in keys), strict=True))
        return sorted(range(len(rows)), key=rows.__getitem__)

    mine = order(actual["levels"], actual["locations"], actual["labels"])
    theirs = order(expected["fpn_levels"], expected["locations"], expected["pred_classes"])
    return {k: v[mine] for k, v in actual.items()}, {k: v[theirs] for k, v in expected.items()}


def assert_same_boxes(actual: dict[str, Tensor], expected: dict[str, Tensor], where: str) -> None:
    assert torch.equal(actual["labels"], expected["pred_classes"]), where
    assert torch.equal(actual["levels"], expected["fpn_levels"]), where
    assert torch.equal(actual["attributes"], expected["pred_attributes"]), where
    offsets = CORNERS / 2 * actual["sizes"].unsqueeze(1)
    corners = (actual["rotations"].unsqueeze(1) @ offsets.unsqueeze(-1)).squeeze(-1) + actual["centers"].unsqueeze(1)
    pairs = {
        "boxes2d": (actual["boxes2d"], expected["pred_boxes"]),
        "scores2d": (actual["scores2d"], expected["scores"]),
        "scores": (actual["scores"], expected["scores_3d"]),
        "locations": (actual["locations"], expected["locations"]),
        "speeds": (actual["speeds"], expected["pred_speeds"]),
        "centers": (actual["centers"], expected["tvec"]),
        "depths": (actual["centers"][:, 2:], expected["depth"]),
        "sizes": (actual["sizes"][:, [1, 0, 2]], expected["size_wlh"]),
        "rotations": (actual["rotations"], matrix_from_quaternion(expected["quat"])),
        "corners": (corners, expected["corners"]),
    }
    for name, (left, right) in pairs.items():
        golden_cases.assert_equal(left, right, f"{where} {name}")
