"""From arrays to Detections3D: which boxes pass, and whose attribute they take over."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bevformer_ros.inference.results import HostBoxes, HostProposals, detections_from
from bevformer_ros.taxonomy import ATTRIBUTE_ID, ATTRIBUTE_NAMES, CLASS_ID, NO_ATTRIBUTE

LEARNED = 5
STAMP = 12_000_000_034
BOX_FIELDS = ("centers", "sizes", "yaws", "velocities")


def geometry_of(count: int) -> dict[str, NDArray]:
    """Centres, sizes, yaws and velocities (1, count, ...), every number another one."""
    rows = np.arange(count, dtype=np.float32)[:, None]
    values = {
        "centers": 10 * rows + np.array([1.0, 2.0, 3.0]),
        "sizes": rows + np.array([4.0, 2.0, 1.5]),
        "yaws": rows[:, 0] / 10,
        "velocities": rows + np.array([0.5, 0.25]),
    }
    return {name: value[None] for name, value in values.items()}


def detected(labels: list[str], query: list[int], proposals: int, **geometry: NDArray) -> HostBoxes:
    """Boxes of so many proposals after LEARNED learned queries, scores descending from 0.9."""
    count = len(labels)
    return HostBoxes(
        **{**geometry_of(count), **geometry},
        scores=0.9 - 0.1 * np.arange(count)[None],
        labels=np.array([[CLASS_ID[name] for name in labels]], np.int64),
        query=np.array([query], np.int64),
        valid=np.ones((1, count), np.bool_),
        from_proposal=np.arange(LEARNED + proposals) >= LEARNED,
    )


def proposed(attributes: list[str], **changes: Any) -> HostProposals:
    count = len(attributes)
    ids = [ATTRIBUTE_ID.get(name, NO_ATTRIBUTE) for name in attributes]
    return HostProposals(
        **geometry_of(count),
        scores=0.8 - 0.1 * np.arange(count)[None],
        labels=np.full((1, count), CLASS_ID["bus"]),
        attributes=np.array([ids], np.int64),
        cameras=np.zeros((1, count), np.int64),
        valid=np.ones((1, count), np.bool_),
    )._replace(**changes)


def names(attributes: np.ndarray) -> list[str]:
    return ["" if index == NO_ATTRIBUTE else ATTRIBUTE_NAMES[index] for index in attributes]


def test_no_boxes() -> None:
    found = detections_from(detected([], [], 0), None, STAMP)
    assert (len(found), found.stamp_ns, found.proposals) == (0, STAMP, None)


def test_boxes_keep_their_numbers_and_order() -> None:
    given = detected(["car", "bus"], [3, 0], 0)
    found = detections_from(given, None, STAMP)
    for name in BOX_FIELDS:
        np.testing.assert_allclose(getattr(found, name), getattr(given, name)[0])
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
    proposals = proposed(["vehicle.moving", "", ""], valid=np.array([[True, False, True]]))
    found = detections_from(detected(["car"], [0], 3), proposals, STAMP).proposals
    assert found is not None
    assert (len(found), found.stamp_ns) == (2, STAMP)
    for name in BOX_FIELDS:
        np.testing.assert_allclose(getattr(found, name), getattr(proposals, name)[0, [0, 2]])
    np.testing.assert_allclose(found.scores, [0.8, 0.6], rtol=1e-6)
    assert found.labels.tolist() == [CLASS_ID["bus"]] * 2
    assert names(found.attributes) == ["vehicle.moving", ""]
    assert found.from_proposal.all()


def test_boxes_that_are_not_valid_are_left_out() -> None:
    given = detected(["car", "bus", "truck"], [0, LEARNED, 1], 1)
    given = given._replace(valid=np.array([[True, True, False]]))
    found = detections_from(given, proposed(["vehicle.parked"]), STAMP)
    assert names(found.attributes) == ["", "vehicle.parked"]
    assert found.labels.tolist() == [CLASS_ID["car"], CLASS_ID["bus"]]


@pytest.mark.parametrize(
    ("name", "row"),
    [("centers", [1.0, math.inf, 0.0]), ("sizes", [4.0, 0.0, 1.0]), ("sizes", [-1.0, 2.0, 1.0])],
)
def test_an_impossible_box_is_left_out(name: str, row: list[float]) -> None:
    """Infinite numbers and sizes of zero or less, of boxes and of proposals."""
    bad = np.array([[row, [1.0, 1.0, 1.0]]])
    given = detected(["car", "bus"], [0, 1], 2, **{name: bad})
    found = detections_from(given, proposed(["", ""], **{name: bad}), STAMP)
    assert found.labels.tolist() == [CLASS_ID["bus"]]
    assert found.proposals is not None
    np.testing.assert_allclose(found.proposals.scores, [0.7])
