"""Which location learns which object, on maps small enough to count."""

from __future__ import annotations

import math

import pytest
import torch

from bevformer_ros.training.config import PerspectiveLossConfig
from bevformer_ros.training.perspective_targets import (
    NO_ATTRIBUTE,
    PerspectiveTargets,
    PerspectiveTruth,
    assign_targets,
)

ONE_LEVEL = PerspectiveLossConfig(size_ranges=((-1, math.inf),))


def objects(*boxes: tuple[float, float, float, float]) -> PerspectiveTruth:
    count = len(boxes)
    return PerspectiveTruth(
        boxes2d=torch.tensor(boxes, dtype=torch.float32).view(count, 4),
        labels=torch.arange(count),
        centers=torch.tensor([0.0, 0.0, 10.0]).expand(count, 3),
        sizes=torch.ones(count, 3),
        rotations=torch.eye(3).expand(count, 3, 3),
        attributes=torch.full((count,), NO_ATTRIBUTE),
        speeds=torch.full((count,), math.nan),
    )


def pixels(targets: PerspectiveTargets) -> list[list[float]]:
    return targets.locations.tolist()


def test_no_objects() -> None:
    targets = assign_targets([(4, 5)], [8], [objects(), objects()], ONE_LEVEL)
    assert targets.places.shape == targets.images.shape == targets.objects.shape == targets.centerness.shape == (0,)
    assert targets.locations.shape == (0, 2) and targets.sides.shape == (0, 4)
    assert len(targets.truth.labels) == 0


@pytest.mark.parametrize(
    ("radius", "expected"),
    [
        (0.5, [[16, 16]]),
        (1.0, [[16, 16]]),  # eight pixels are not less than eight
        (1.5, [[x, y] for y in (8, 16, 24) for x in (8, 16, 24)]),
        (9.0, [[x, y] for y in (8, 16, 24) for x in (8, 16, 24)]),  # the border of the box (0 and 32) is outside
    ],
)
def test_locations_around_the_centre_of_the_box(radius: float, expected: list[list[float]]) -> None:
    config = PerspectiveLossConfig(size_ranges=((-1, math.inf),), center_radius=radius)
    targets = assign_targets([(5, 5)], [8], [objects((0, 0, 32, 32))], config)
    assert pixels(targets) == expected


def test_sides_and_centerness() -> None:
    targets = assign_targets([(5, 5)], [8], [objects((0, 0, 32, 32))], ONE_LEVEL)
    at = {tuple(place): row for row, place in enumerate(pixels(targets))}
    assert targets.sides[at[16, 16]].tolist() == [16, 16, 16, 16]
    assert targets.sides[at[8, 24]].tolist() == [8, 24, 24, 8]
    assert targets.centerness[at[16, 16]] == 1
    assert targets.centerness[at[8, 16]].item() == pytest.approx(math.sqrt(8 / 24))
    assert targets.centerness[at[8, 24]].item() == pytest.approx(8 / 24)


@pytest.mark.parametrize(
    ("size", "levels"),
    [
        (32, {0}),
        (128, {0, 1}),  # 64 pixels from the centre, more from elsewhere: both ranges contain 64
        (200, {1}),
    ],
)
def test_large_objects_are_learned_on_coarse_levels(size: float, levels: set[int]) -> None:
    config = PerspectiveLossConfig(size_ranges=((-1, 64), (64, math.inf)))
    targets = assign_targets([(32, 32), (16, 16)], [8, 16], [objects((0, 0, size, size))], config)
    assert {int(place >= 32 * 32) for place in targets.places.tolist()} == levels


def test_of_two_objects_the_smaller_one_is_learned() -> None:
    truth = objects((0, 0, 64, 64), (24, 24, 40, 40))
    targets = assign_targets([(8, 8)], [8], [truth], ONE_LEVEL)
    learned = dict(zip(map(tuple, pixels(targets)), targets.objects.tolist(), strict=True))
    assert learned[32, 32] == 1
    assert learned[24, 24] == 0  # on the border of the smaller one


def test_order_is_level_image_row_column() -> None:
    config = PerspectiveLossConfig(size_ranges=((-1, math.inf), (-1, math.inf)), center_radius=0.5)
    truth = [objects(), objects((0, 0, 16, 16), (16, 0, 32, 16)), objects((0, 0, 32, 32))]
    targets = assign_targets([(4, 4), (2, 2)], [8, 16], truth, config)
    assert pixels(targets) == [[8, 8], [24, 8], [16, 16], [16, 16]]
    assert targets.images.tolist() == [1, 1, 2, 2]
    assert targets.objects.tolist() == [0, 1, 2, 2]
    # Three images of 16 locations each, then three of 4.
    assert targets.places.tolist() == [16 + 5, 16 + 7, 32 + 10, 48 + 8 + 3]


def test_levels_must_agree() -> None:
    with pytest.raises(ValueError, match="one entry per level, got 2, 1 and 1"):
        assign_targets([(4, 4), (2, 2)], [8], [objects()], ONE_LEVEL)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size_ranges": ((64, 64),)}, "ascending pairs"),
        ({"center_radius": 0}, "center_radius must be positive, got 0"),
        ({"corner_beta": -1}, "corner_beta must be positive, got -1"),
    ],
)
def test_bad_config(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PerspectiveLossConfig(**values)
