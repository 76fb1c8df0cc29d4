"""Geometry and suppression of perspective boxes, on cases small enough to check by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from bevformer_ros.model.config import PerspectiveHeadConfig, ProposalConfig
from bevformer_ros.model.perspective_boxes import (
    PerspectiveBoxes,
    PerspectiveDecoder,
    compose,
    decode_boxes3d,
    greedy_keep,
    inverse_intrinsics,
    matrix_from_quaternion,
    overlaps,
    ray_frames,
    rotate,
)
from bevformer_ros.model.perspective_head import PerspectiveHead


def test_inverse_intrinsics() -> None:
    intrinsics = torch.tensor([[[900.0, 3, 800], [0, 950, 320], [0, 0, 1]], [[500, 0, 1], [0, 400, 2], [0, 0, 1]]])
    product = compose(inverse_intrinsics(intrinsics), intrinsics)
    assert torch.allclose(product, torch.eye(3).expand(2, 3, 3), atol=1e-4)


def test_quaternions() -> None:
    quaternions = np.random.default_rng(0).normal(size=(20, 4))
    expected = Rotation.from_quat(quaternions[:, [1, 2, 3, 0]]).as_matrix()
    unit = torch.from_numpy(quaternions / np.linalg.norm(quaternions, axis=-1, keepdims=True))
    assert torch.allclose(matrix_from_quaternion(unit), torch.from_numpy(expected))
    assert torch.equal(matrix_from_quaternion(torch.zeros(4)), torch.eye(3))


RAYS = {
    "ahead": ([0.0, 0, 1], [[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]),
    "right": ([2.0, 0, 0], [[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]),
    "down and ahead": ([0.0, 1, 1], [[1.0, 0, 0], [0, 0.5**0.5, 0.5**0.5], [0, -(0.5**0.5), 0.5**0.5]]),
}


@pytest.mark.parametrize(("ray", "expected"), RAYS.values(), ids=RAYS.keys())
def test_ray_frames(ray: list, expected: list) -> None:
    assert torch.allclose(ray_frames(torch.tensor(ray)), torch.tensor(expected), atol=1e-6)


def test_a_box_decoded_by_hand() -> None:
    """Focal length 1000 in both directions: pixel size sqrt(2) / 1000, so the depth scale is sqrt(2) / 2."""
    intrinsics = torch.tensor([[1000.0, 0, 100], [0, 1000, 50], [0, 0, 1]])
    centers, sizes, rotations = decode_boxes3d(
        quaternions=torch.tensor([2.0, 0, 0, 0]),
        center_offsets=torch.tensor([12.0, 34]),
        depths=torch.tensor(10 * math.sqrt(2) / 2),
        sizes=torch.tensor([0.0, math.atanh(0.5), 0]),
        locations=torch.tensor([88.0, 16]),
        inverse=inverse_intrinsics(intrinsics[None])[0],
        canonical_sizes=torch.tensor([4.0, 2, 1.5]),
        config=PerspectiveHeadConfig(),
    )
    assert torch.allclose(centers, torch.tensor([0.0, 0, 10]), atol=1e-5)
    assert torch.allclose(sizes, torch.tensor([6.0, 2, 1.5]))
    assert torch.allclose(rotations, torch.eye(3), atol=1e-6)
    assert torch.allclose(rotate(rotations, torch.tensor([1.0, 2, 3])), torch.tensor([1.0, 2, 3]), atol=1e-5)


# Boxes as left, right: all are 1 high.
KEPT = {
    "no boxes": ([], [], []),
    "one": ([(0, 10)], [True], [True]),
    "invalid": ([(0, 10)], [False], [False]),
    "apart": ([(0, 10), (10, 20)], [True, True], [True, True]),
    "same": ([(0, 10), (0, 10)], [True, True], [True, False]),
    "an invalid box drops none": ([(0, 10), (0, 10)], [False, True], [False, True]),
    "a dropped box drops none": ([(0, 10), (2, 12), (4, 14)], [True] * 3, [True, False, True]),
    "without area": ([(3, 3), (3, 3)], [True, True], [True, True]),
}


@pytest.mark.parametrize(("sides", "valid", "expected"), KEPT.values(), ids=KEPT.keys())
def test_greedy_suppression(sides: list, valid: list, expected: list) -> None:
    boxes = torch.tensor([(left, 0, right, 1) for left, right in sides], dtype=torch.float32).view(1, -1, 4)
    keep = greedy_keep(overlaps(boxes, 0.5), torch.tensor(valid, dtype=torch.bool).view(1, -1))
    assert keep[0].tolist() == expected


def test_suppression_equals_the_sequential_one() -> None:
    generator = torch.Generator().manual_seed(0)
    low = 40 * torch.rand(3, 300, 2, generator=generator)
    boxes = torch.cat([low, low + 2 + 20 * torch.rand(3, 300, 2, generator=generator)], dim=-1)
    overlap = overlaps(boxes, 0.3)
    valid = torch.rand(3, 300, generator=generator) > 0.1
    assert torch.equal(greedy_keep(overlap, valid), sequential_keep(overlap, valid))


def sequential_keep(suppresses: Tensor, valid: Tensor) -> Tensor:
    keep = valid.clone()
    for batch in range(len(valid)):
        for better in range(valid.shape[1]):
            if keep[batch, better]:
                keep[batch, better + 1 :] &= ~suppresses[batch, better, better + 1 :]
    return keep


def boxes2d_with(scores: list[float], scores2d: list[float], labels: list[int], sides: list) -> PerspectiveBoxes:
    count = len(scores)
    return PerspectiveBoxes(
        boxes2d=torch.tensor([[(left, 0.0, right, 1.0) for left, right in sides]]),
        scores2d=torch.tensor([scores2d]),
        scores=torch.tensor([scores]),
        labels=torch.tensor([labels]),
        attributes=torch.zeros(1, count, dtype=torch.long),
        speeds=torch.zeros(1, count),
        levels=torch.zeros(1, count, dtype=torch.long),
        locations=torch.zeros(1, count, 2),
        centers=torch.zeros(1, count, 3),
        sizes=torch.ones(1, count, 3),
        rotations=torch.eye(3).expand(1, count, 3, 3),
        valid=torch.ones(1, count, dtype=torch.bool),
    )


SUPPRESSED = {
    # By 3D score 0.9 drops 0.8 although its 2D score is lower.
    "by 3D score": ([0.8, 0.9], [0.95, 0.5], [1, 1], [(0, 10), (0, 10)], 5, [0.9]),
    "class by class": ([0.8, 0.9], [0.5, 0.5], [1, 2], [(0, 10), (0, 10)], 5, [0.9, 0.8]),
    # The best two 2D scores stay, in the order of their 3D scores.
    "cap by 2D score": ([0.3, 0.5, 0.4], [0.9, 0.1, 0.8], [1, 1, 1], [(0, 1), (2, 3), (4, 5)], 2, [0.4, 0.3]),
}


@pytest.mark.parametrize(
    ("scores", "scores2d", "labels", "sides", "cap", "expected"), SUPPRESSED.values(), ids=SUPPRESSED.keys()
)
def test_suppression_in_an_image(
    scores: list, scores2d: list, labels: list, sides: list, cap: int, expected: list
) -> None:
    decoder = PerspectiveDecoder(PerspectiveHeadConfig(), ProposalConfig(boxes_per_image=cap))
    boxes = decoder.suppress(boxes2d_with(scores, scores2d, labels, sides))
    assert boxes.scores[0, boxes.valid[0]].tolist() == pytest.approx(expected)


def test_shapes_do_not_depend_on_what_is_seen() -> None:
    torch.manual_seed(0)
    head = PerspectiveHead(PerspectiveHeadConfig(tower_depth=1), 8).eval()
    features = [torch.randn(2, 8, 8 >> level or 1, 16 >> level) for level in range(5)]
    intrinsics = torch.tensor([[100.0, 0, 64], [0, 100, 32], [0, 0, 1]]).expand(2, 3, 3)
    shapes, counts = set(), set()
    for threshold in (0.0, 0.2, 1.0):
        config = ProposalConfig(score_threshold=threshold, candidates_per_level=30, boxes_per_image=20)
        boxes = PerspectiveDecoder(PerspectiveHeadConfig(), config)(head(features), intrinsics)
        shapes.add(tuple(tuple(values.shape) for values in boxes))
        counts.add(int(boxes.valid.sum()))
        assert all(values.isfinite().all() for values in boxes)
    assert len(shapes) == 1
    assert min(counts) == 0
    assert max(counts) == 40
