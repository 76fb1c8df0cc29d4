"""From tensors to Detections3D: which boxes pass, and whose attribute they take over."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bevformer_ros.inference.results import detections_from
from bevformer_ros.inference.stages import DetectedBoxes
from bevformer_ros.model.box_coding import Boxes, DecodedBoxes
from bevformer_ros.model.proposals import Proposals
from bevformer_ros.taxonomy import ATTRIBUTE_ID, ATTRIBUTE_NAMES, CLASS_ID, NO_ATTRIBUTE

LEARNED = 5
STAMP = 12_000_000_034


def geometry_of(count: int) -> tuple[Tensor, ...]:
    """Centres, sizes, yaws and velocities (1, count, ...), every number another one."""
    rows = torch.arange(count, dtype=torch.float32).unsqueeze(1)
    centers, sizes = 10 * rows + torch.tensor([1.0, 2.0, 3.0]), rows + torch.tensor([4.0, 2.0, 1.5])
    return tuple(values.unsqueeze(0) for values in (centers, sizes, rows[:, 0] / 10, rows + torch.tensor([0.5, 0.25])))


def detected(labels: list[str], query: list[int], proposals: int, **geometry: Tensor) -> DetectedBoxes:
    """Boxes of so many proposals after LEARNED learned queries, scores descending from 0.9."""
    count = len(labels)
    boxes = Boxes(*geometry_of(count))._replace(**geometry)
    decoded = DecodedBoxes(
        boxes=boxes,
        scores=0.9 - 0.1 * torch.arange(count)[None],
        labels=torch.tensor([[CLASS_ID[name] for name in labels]], dtype=torch.long),
        query=torch.tensor([query], dtype=torch.long),
        valid=torch.ones(1, count, dtype=torch.bool),
    )
    return DetectedBoxes(decoded, torch.arange(LEARNED + proposals) >= LEARNED)


def proposed(attributes: list[str], **changes: Any) -> Proposals:
    count = len(attributes)
    centers, sizes, yaws, velocities = geometry_of(count)
    ids = [ATTRIBUTE_ID.get(name, NO_ATTRIBUTE) for name in attributes]
    return Proposals(
        centers,
        sizes,
        yaws,
        velocities,
        scores=0.8 - 0.1 * torch.arange(count)[None],
        labels=torch.full((1, count), CLASS_ID["bus"]),
        attributes=torch.tensor([ids], dtype=torch.long),
        cameras=torch.zeros(1, count, dtype=torch.long),
        valid=torch.ones(1, count, dtype=torch.bool),
    )._replace(**changes)


def names(attributes: np.ndarray) -> list[str]:
    return ["" if index == NO_ATTRIBUTE else ATTRIBUTE_NAMES[index] for index in attributes]


def test_no_boxes() -> None:
    found = detections_from(detected([], [], 0), None, STAMP)
    assert (len(found), found.stamp_ns, found.proposals) == (0, STAMP, None)


def test_boxes_keep_their_numbers_and_order() -> None:
    given = detected(["car", "bus"], [3, 0], 0)
    found = detections_from(given, None, STAMP)
    for name in Boxes._fields:
        np.testing.assert_allclose(getattr(found, name), getattr(given.boxes.boxes, name)[0])
    np.testing.assert_allclose(found.scores, [0.9, 0.8])
    assert found.labels.tolist() == [CLASS_ID["car"], CLASS_ID["bus"]]
    assert not found.from_proposal.any()
    assert names(found.attributes) == ["", ""]


def test_a_box_takes_over_the_attribute_of_its_own_proposal() -> None:
    """Queries 5, 6, 7 are proposals 0, 1, 2."""
    proposals = proposed(["vehicle.moving", "vehicle.parked", "vehicle.stopped"])
    found = detections_from(detected(["car", "car", "car", "car"], [7, 2, 5, 6], 3), proposals, STAMP)
    assert names(found.attributes) == ["vehicle.stopped", "", "vehicle.moving", "vehicle.parked"]
    assert found.from_proposal.tolist() == [True, False, True, True]


@pytest.mark.parametrize(
    ("label", "attribute", "expected"),
    [
        ("car", "", ""),
        ("car", "vehicle.parked", "vehicle.parked"),
        ("car", "pedestrian.moving", ""),
        ("pedestrian", "pedestrian.moving", "pedestrian.moving"),
        ("bicycle", "cycle.with_rider", "cycle.with_rider"),
        ("barrier", "vehicle.parked", ""),
    ],
)
def test_an_attribute_that_the_class_cannot_carry_is_left_out(label: str, attribute: str, expected: str) -> None:
    found = detections_from(detected([label], [LEARNED], 1), proposed([attribute]), STAMP)
    assert names(found.attributes) == [expected]


def test_proposals_come_along() -> None:
    proposals = proposed(["vehicle.moving", "", ""], valid=torch.tensor([[True, False, True]]))
    found = detections_from(detected(["car"], [0], 3), proposals, STAMP).proposals
    assert found is not None
    assert (len(found), found.stamp_ns) == (2, STAMP)
    for name in Boxes._fields:
        np.testing.assert_allclose(getattr(found, name), getattr(proposals, name)[0, [0, 2]])
    np.testing.assert_allclose(found.scores, [0.8, 0.6], rtol=1e-6)
    assert found.labels.tolist() == [CLASS_ID["bus"]] * 2
    assert names(found.attributes) == ["vehicle.moving", ""]
    assert found.from_proposal.all()


def test_boxes_that_are_not_valid_are_left_out() -> None:
    given = detected(["car", "bus", "truck"], [0, LEARNED, 1], 1)
    given = given._replace(boxes=given.boxes._replace(valid=torch.tensor([[True, True, False]])))
    found = detections_from(given, proposed(["vehicle.parked"]), STAMP)
    assert names(found.attributes) == ["", "vehicle.parked"]
    assert found.labels.tolist() == [CLASS_ID["car"], CLASS_ID["bus"]]


@pytest.mark.parametrize(
    ("name", "row"),
    [("centers", [1.0, math.inf, 0.0]), ("sizes", [4.0, 0.0, 1.0]), ("sizes", [-1.0, 2.0, 1.0])],
)
def test_an_impossible_box_is_left_out(name: str, row: list[float]) -> None:
    """Infinite numbers and sizes of zero or less, of boxes and of proposals."""
    bad = torch.tensor([row, [1.0, 1.0, 1.0]])[None]
    given = detected(["car", "bus"], [0, 1], 2, **{name: bad})
    found = detections_from(given, proposed(["", ""], **{name: bad}), STAMP)
    assert found.labels.tolist() == [CLASS_ID["bus"]]
    assert found.proposals is not None
    np.testing.assert_allclose(found.proposals.scores, [0.7])
