"""Conventions there and back, and decoding that never invents a box."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support import REPOSITORY
from torch import Tensor

from bevformer_ros import geometry
from bevformer_ros.datasets.keyframe import keyframe_truth, load_keyframe
from bevformer_ros.model.box_coding import (
    Boxes,
    boxes_to_codes,
    boxes_to_official,
    codes_to_boxes,
    decode_boxes,
    official_to_boxes,
)

KEYFRAME = REPOSITORY.parent / "shared" / "data" / "nuscenes_frame"


def boxes(*yaws: float) -> Boxes:
    count = len(yaws)
    return Boxes(
        centers=torch.arange(3.0 * count).view(count, 3),
        sizes=torch.tensor([[4.5, 1.9, 1.6]]).repeat(count, 1),
        yaws=torch.tensor(yaws),
        velocities=torch.tensor([[1.0, -2.0]]).repeat(count, 1),
    )


@pytest.mark.parametrize("yaws", [(), (0.0,), (-math.pi, -3.0, -math.pi / 2, -0.1, 0.0, 1.0, math.pi / 2, 3.0)])
def test_there_and_back(yaws: tuple[float, ...]) -> None:
    expected = boxes(*yaws)
    for restored in (codes_to_boxes(boxes_to_codes(expected)), official_to_boxes(boxes_to_official(expected))):
        for name, values in restored._asdict().items():
            torch.testing.assert_close(values, getattr(expected, name), atol=1e-5, rtol=1e-5, msg=name)


def test_official_layout() -> None:
    """A car that points along +x has official yaw -pi/2, and its width comes first."""
    official = boxes_to_official(boxes(0.0))
    torch.testing.assert_close(
        official, torch.tensor([[0.0, 1.0, 2.0, 1.9, 4.5, 1.6, -math.pi / 2, 1.0, -2.0]]), atol=1e-6, rtol=0
    )
    code = boxes_to_codes(boxes(0.0))[0]
    expected = [0, 1, math.log(1.9), math.log(4.5), 2, math.log(1.6), -1, 0, 1, -2]
    torch.testing.assert_close(code, torch.tensor(expected), atol=1e-6, rtol=0)


def logits(*scores: float) -> Tensor:
    """(1, Q, 2) with the given score for class 1 and almost none for class 0."""
    given = torch.tensor(scores)
    return torch.stack([torch.full_like(given, -20.0), given.logit()], dim=-1).unsqueeze(0)


CODES = boxes_to_codes(boxes(0.1, 0.2, 0.3)).unsqueeze(0)


@pytest.mark.parametrize(
    ("scores", "threshold", "expected"),
    [
        pytest.param((0.1, 0.2, 0.3), 0.5, [], id="nothing passes"),
        pytest.param((0.5, 0.5, 0.5), 0.5, [], id="equal does not pass"),
        pytest.param((0.1, 0.9, 0.6), 0.5, [1, 2], id="best first"),
        pytest.param((0.7, 0.9, 0.8), 0.5, [1, 2], id="no more than asked for"),
    ],
)
def test_decoding(scores: tuple[float, ...], threshold: float, expected: list[int]) -> None:
    decoded = decode_boxes(logits(*scores), CODES, max_detections=2, score_threshold=threshold)
    valid = decoded.valid[0]
    assert valid.shape == (2,), "static shapes whatever passes"
    assert decoded.query[0, valid].tolist() == expected
    assert decoded.labels[0, valid].tolist() == [1] * len(expected)
    torch.testing.assert_close(decoded.boxes.yaws[0, valid], boxes(0.1, 0.2, 0.3).yaws[expected])


def test_more_asked_for_than_there_are() -> None:
    decoded = decode_boxes(logits(0.1, 0.9, 0.6), CODES, max_detections=50, score_threshold=0.5)
    assert decoded.valid.shape == (1, 6)
    assert decoded.valid.sum() == 2


def test_padded_queries_give_no_boxes() -> None:
    padding = torch.tensor([[False, True, False]])
    decoded = decode_boxes(logits(0.1, 0.9, 0.6), CODES, 3, 0.0, padding)
    assert 1 not in decoded.query[0, decoded.valid[0]].tolist()


@pytest.mark.skipif(not (KEYFRAME / "frame.json").is_file(), reason=f"{KEYFRAME} holds no keyframe")
@pytest.mark.parametrize("layout", ["official boxes", "box codes"])
def test_truth_of_the_real_keyframe_projects_onto_the_same_pixels(layout: str) -> None:
    """Ground truth written in the official layout and read back lies where it was, in every camera."""
    frame = load_keyframe(KEYFRAME)
    truth = keyframe_truth(frame)
    assert len(truth) > 0
    given = Boxes(*(torch.from_numpy(values) for values in (truth.centers, truth.sizes, truth.yaws, truth.velocities)))
    if layout == "official boxes":
        restored = official_to_boxes(boxes_to_official(given).float())
    else:
        restored = codes_to_boxes(boxes_to_codes(given).float())
    corners = geometry.box_corners(*(values.double().numpy() for values in restored[:3]))
    seen = 0
    for camera in frame["cameras"].values():
        intrinsics, camera_from_lidar = np.array(camera["intrinsics"]), np.array(camera["lidar_to_camera"])
        expected, depth = geometry.project(intrinsics, geometry.apply(camera_from_lidar, truth.corners()))
        actual, _ = geometry.project(intrinsics, geometry.apply(camera_from_lidar, corners))
        before_camera = (depth > 1).all(axis=1)
        seen += before_camera.sum()
        assert np.abs(actual[before_camera] - expected[before_camera]).max(initial=0) < 0.05
    assert seen > len(truth) / 2
