"""Comparing decoded boxes with the official ones, whatever the order of boxes whose scores are almost equal."""

from __future__ import annotations

import math

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from bevformer_ros.model.box_coding import DecodedBoxes, boxes_to_official


def official_rows(decoded: DecodedBoxes, element: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Official boxes (n, 9) with z at the centre, scores, labels of the valid boxes of a batch element."""
    valid = decoded.valid[element]
    boxes = boxes_to_official(decoded.boxes)[element]
    return boxes[valid], decoded.scores[element][valid], decoded.labels[element][valid]


def assert_same_detections(
    actual: tuple[Tensor, Tensor, Tensor], expected: tuple[Tensor, Tensor, Tensor], what: str, tolerance: float = 1e-4
) -> None:
    """Boxes (n, 9), scores (n,) and labels (n,) are the same set, numbers within tolerance of the largest value.

    Order counts but for neighbours whose scores differ by no more than the tolerance.
    """
    boxes, scores, labels = actual
    expected_boxes, expected_scores, expected_labels = expected
    assert boxes.shape == expected_boxes.shape, f"{what}: {len(boxes)} boxes, expected {len(expected_boxes)}"
    if not len(boxes):
        return
    assert (scores - expected_scores).abs().max() <= tolerance * expected_scores.abs().max(), f"{what}: scores differ"
    difference = (boxes[:, None] - expected_boxes[None]).double()  # (actual, expected, 9)
    difference[..., 6] = torch.remainder(difference[..., 6] + math.pi, 2 * math.pi) - math.pi
    error = difference.abs().amax(dim=-1) / expected_boxes.abs().max()
    error = error.maximum((scores[:, None] - expected_scores[None]).abs() / expected_scores.abs().max())
    error[labels[:, None] != expected_labels[None]] = 1e3
    rows, columns = linear_sum_assignment(error.numpy())
    worst = error[rows, columns].max()
    assert worst <= tolerance, f"{what}: relative error {worst:.2e} (1e3 is a wrong label)"
    assert labels[rows].tolist() == expected_labels[columns].tolist()
