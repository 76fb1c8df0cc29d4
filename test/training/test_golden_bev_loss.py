"""The decoder's set loss against the official code (golden case 5a, on the outputs of case 1)."""

from __future__ import annotations

from pathlib import Path

import golden_cases
import pytest
import torch
from golden_truth import bev_truth

from bevformer_ros.model.box_coding import boxes_to_codes
from bevformer_ros.model.decoder import DecoderOutput
from bevformer_ros.training.bev_loss import bev_loss
from bevformer_ros.training.config import BevLossConfig

GRADIENT_TOLERANCE = 1e-3


@pytest.mark.parametrize("truth_name", ["gt", "gt_nanvel"])
@pytest.mark.parametrize("path", golden_cases.variants("case5a_bev_head_losses"))
def test_golden_bev_loss(path: Path, truth_name: str) -> None:
    tensors, description = golden_cases.load(path)
    outputs, _ = golden_cases.load(path.with_name(f"{description['uses_weights_and_inputs_of']}.safetensors"))
    expected = golden_cases.part(tensors, f"outputs.{truth_name}.")
    inputs = golden_cases.part(tensors, f"inputs.{truth_name}.")
    truth = bev_truth(inputs["boxes_lidar_bottom_center"], inputs["labels"], inputs["velocity_is_nan"])
    logits = outputs["outputs.all_cls_scores"].requires_grad_()
    codes = outputs["outputs.all_bbox_preds"].requires_grad_()

    learned = torch.zeros(logits.shape[2], dtype=torch.bool)
    loss = bev_loss(DecoderOutput(logits, codes, None, learned), [truth], BevLossConfig())
    loss.total.backward()

    codes_of_truth = boxes_to_codes(truth.boxes)
    known = codes_of_truth.isfinite()
    golden_cases.assert_equal(codes_of_truth[known], expected["normalized_targets"][known], "targets")
    assert torch.equal(loss.assigned[:, 0] + 1, expected["assigned_gt_inds"])
    last = len(loss.classes) - 1
    for layer in range(len(loss.classes)):
        prefix = "" if layer == last else f"d{layer}."
        golden_cases.assert_equal(loss.classes[layer], expected[f"{prefix}loss_cls"], f"{prefix}loss_cls")
        golden_cases.assert_equal(loss.boxes[layer], expected[f"{prefix}loss_bbox"], f"{prefix}loss_bbox")
    assert logits.grad is not None and codes.grad is not None
    golden_cases.assert_equal(logits.grad, expected["grad_all_cls_scores"], "class gradient", GRADIENT_TOLERANCE)
    golden_cases.assert_equal(codes.grad, expected["grad_all_bbox_preds"], "box gradient", GRADIENT_TOLERANCE)
