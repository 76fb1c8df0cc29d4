"""Overlap of rotated rectangles, against cases solved by hand and against OpenCV's polygon clipping."""

import math

import cv2
import numpy as np
import pytest
import torch

from bevformer_ros.model.footprints import footprint_iou


def iou(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    """Of two boxes, each x, y, length, width, yaw."""
    boxes = torch.tensor([first, second])
    centers, sizes = (torch.cat([part, torch.ones(2, 1)], dim=1) for part in (boxes[:, :2], boxes[:, 2:4]))
    return float(footprint_iou(centers[None], sizes[None], boxes[None, :, 4])[0, 0, 1])


def test_no_boxes() -> None:
    assert footprint_iou(torch.zeros(1, 0, 3), torch.ones(1, 0, 3), torch.zeros(1, 0)).shape == (1, 0, 0)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((0, 0, 4, 2, 0), (0, 0, 4, 2, 0), 1),
        ((0, 0, 4, 2, 0), (0, 0, 4, 2, math.pi), 1),
        ((30, -40, 4, 2, 0.3), (30, -40, 4, 2, 0.3), 1),
        ((0, 0, 4, 2, 0), (2, 0, 4, 2, 0), 1 / 3),  # 4 of 12
        ((0, 0, 4, 2, 0), (4, 0, 4, 2, 0), 0),  # side by side
        ((0, 0, 4, 2, 0), (9, 9, 4, 2, 1), 0),
        ((0, 0, 4, 2, 0), (0, 0, 1, 1, 0.7), 1 / 8),  # one inside the other
        ((0, 0, 4, 2, 0), (0, 0, 4, 2, math.pi / 2), 4 / 12),  # a cross
        ((0, 0, 2, 2, 0), (0, 0, 2, 2, math.pi / 4), 0.7071),  # a regular octagon of area 8 (sqrt(2) - 1)
    ],
)
def test_solved_by_hand(first: tuple[float, ...], second: tuple[float, ...], expected: float) -> None:
    assert iou(first, second) == pytest.approx(expected, abs=1e-3)
    assert iou(second, first) == pytest.approx(expected, abs=1e-3)


def test_agrees_with_polygon_clipping() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        first, second = (
            (*random.uniform(-2, 2, 2), *random.uniform(0.5, 5, 2), random.uniform(-math.pi, math.pi)) for _ in range(2)
        )
        kind, polygon = cv2.rotatedRectangleIntersection(
            *((box[:2], box[2:4], math.degrees(box[4])) for box in (first, second))
        )
        shared = cv2.contourArea(cv2.convexHull(polygon)) if kind else 0.0
        whole = first[2] * first[3] + second[2] * second[3]
        assert iou(first, second) == pytest.approx(shared / (whole - shared), abs=2e-3)
