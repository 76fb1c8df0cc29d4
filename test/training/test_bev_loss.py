"""The decoder's set loss by hand: matching, its divisor, groups, padding, what is unknown."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bevformer_ros.model.box_coding import Boxes, boxes_to_codes
from bevformer_ros.model.decoder import DecoderOutput
from bevformer_ros.training.bev_loss import BevTruth, bev_loss
from bevformer_ros.training.config import BevLossConfig

CLASSES = 3
CONFIG = BevLossConfig()
# Loss of a logit of zero as a negative and as a positive, with the class weight of 2.
NEGATIVE = 2 * 0.75 * 0.25 * math.log(2)
POSITIVE = 2 * 0.25 * 0.25 * math.log(2)


def objects(*places: tuple[float, float], velocity: float = 1.0) -> BevTruth:
    """Cubes of one metre at the places, class 1."""
    count = len(places)
    centers = torch.cat([torch.tensor(places).view(count, 2), torch.zeros(count, 1)], dim=1)
    boxes = Boxes(centers, torch.ones(count, 3), torch.zeros(count), torch.full((count, 2), velocity))
    return BevTruth(boxes, torch.ones(count, dtype=torch.int64))


def output(codes: Tensor, padding: Tensor | None = None) -> DecoderOutput:
    """One layer; codes (B, Q, 10), all class logits zero."""
    logits = torch.zeros(1, *codes.shape[:2], CLASSES, requires_grad=True)
    learned = torch.zeros(codes.shape[1], dtype=torch.bool)
    return DecoderOutput(logits, codes.unsqueeze(0).requires_grad_(), padding, learned)


def codes_at(*places: tuple[float, float]) -> Tensor:
    """(Q, 10) as `objects` at the places would have them."""
    return boxes_to_codes(objects(*places).boxes)


def test_no_objects() -> None:
    given = output(torch.zeros(2, 4, 10))
    loss = bev_loss(given, [objects(), objects()], CONFIG)
    loss.total.backward()
    assert loss.assigned.tolist() == [[[-1] * 4] * 2]
    assert loss.boxes.tolist() == [0]
    assert loss.classes.item() == pytest.approx(2 * 4 * CLASSES * NEGATIVE)
    assert given.class_logits.grad is not None and given.class_logits.grad.ne(0).all()
    assert given.box_codes.grad is not None and given.box_codes.grad.eq(0).all()


def test_one_object_goes_to_the_nearest_query() -> None:
    loss = bev_loss(output(codes_at((9, 9), (0, 3), (5, 0)).unsqueeze(0)), [objects((0, 0))], CONFIG)
    assert loss.assigned.tolist() == [[[-1, 0, -1]]]
    assert loss.boxes.item() == pytest.approx(0.75 * (3 - 0.5))
    assert loss.classes.item() == pytest.approx(8 * NEGATIVE + POSITIVE)


@pytest.mark.parametrize(("from_proposal", "expected"), [(False, [0, -1]), (True, [-1, -1])])
def test_a_proposal_far_from_every_object_is_matched_with_none(from_proposal: bool, expected: list[int]) -> None:
    given = output(codes_at((3, 0), (5, 0)).unsqueeze(0))._replace(from_proposal=torch.tensor([from_proposal, True]))
    loss = bev_loss(given, [objects((0, 0))], replace(CONFIG, proposal_radius=2.0))
    assert loss.assigned.tolist() == [[expected]]
    assert loss.total.isfinite()


@pytest.mark.parametrize(("learned_radius", "expected"), [(None, [0, -1]), (2.0, [-1, -1]), (4.0, [0, -1])])
def test_an_object_far_from_every_query_teaches_nobody(learned_radius: float | None, expected: list[int]) -> None:
    given = output(codes_at((3, 0), (5, 0)).unsqueeze(0))
    loss = bev_loss(given, [objects((0, 0))], replace(CONFIG, learned_radius=learned_radius))
    assert loss.assigned.tolist() == [[expected]]
    assert (loss.boxes.item() > 0) == (expected != [-1, -1])


def test_a_class_target_tells_how_well_the_box_is_placed() -> None:
    """Two metres off at a quality distance of two: the target is 1 / e, the wrongness of a half 0.5 - 1 / e."""
    loss = bev_loss(output(codes_at((2, 0)).unsqueeze(0)), [objects((0, 0))], replace(CONFIG, quality_distance=2.0))
    target = math.exp(-1)
    positive = 2 * 0.25 * (0.5 - target) ** 2 * math.log(2)
    assert loss.classes.item() == pytest.approx(2 * NEGATIVE + positive)


def test_the_right_class_outweighs_a_little_distance() -> None:
    given = output(codes_at((0, 0), (0, 0.5)).unsqueeze(0))
    given.class_logits.data[0, 0, 0, 1], given.class_logits.data[0, 0, 1, 1] = -5, 5
    assert bev_loss(given, [objects((0, 0))], CONFIG).assigned.tolist() == [[[-1, 0]]]


def test_each_sample_has_its_own_objects() -> None:
    codes = torch.stack([codes_at((0, 0), (9, 9)), codes_at((0, 0), (9, 9))])
    loss = bev_loss(output(codes), [objects((9, 9)), objects((9, 9), (0, 2))], CONFIG)
    assert loss.assigned.tolist() == [[[-1, 0], [1, 0]]]
    assert loss.boxes.item() == pytest.approx(0.75 * (2 - 0.5) / 3)  # three matched queries in the batch


def test_more_objects_than_queries() -> None:
    loss = bev_loss(output(codes_at((0, 0)).unsqueeze(0)), [objects((5, 5), (0, 0))], CONFIG)
    assert loss.assigned.tolist() == [[[1]]]
    assert loss.total.isfinite()


def test_velocity_weighs_a_fifth_in_the_loss_and_nothing_in_the_matching() -> None:
    codes = codes_at((0, 0), (0, 0.1))
    codes[0, 8:] = 4  # 3 m/s off in both directions
    loss = bev_loss(output(codes.unsqueeze(0)), [objects((0, 0))], CONFIG)
    assert loss.assigned.tolist() == [[[0, -1]]]
    assert loss.boxes.item() == pytest.approx(0.75 * 2 * 0.2 * (3 - 0.5))


def test_an_object_of_unknown_velocity_counts_in_the_divisor_only() -> None:
    known, unknown = objects((0, 0)), objects((9, 9), velocity=math.nan)
    both = BevTruth(Boxes(*map(torch.cat, zip(known.boxes, unknown.boxes, strict=True))), torch.tensor([1, 1]))
    given = output(codes_at((0, 3), (9, 5)).unsqueeze(0))
    loss = bev_loss(given, [both], CONFIG)
    loss.total.backward()
    assert loss.assigned.tolist() == [[[0, 1]]]
    assert loss.boxes.item() == pytest.approx(0.75 * (3 - 0.5) / 2)
    assert given.box_codes.grad is not None and given.box_codes.grad.isfinite().all()


def test_an_object_without_size_does_not_stop_training() -> None:
    truth = objects((0, 0), (9, 9))
    truth.boxes.sizes[1] = 0
    loss = bev_loss(output(codes_at((0, 0), (9, 9)).unsqueeze(0)), [truth], CONFIG)
    assert loss.assigned.tolist() == [[[0, 1]]]
    assert loss.boxes.item() == 0


def test_every_group_is_matched_on_its_own_and_the_losses_are_averaged() -> None:
    first, second = codes_at((0, 3), (9, 9)), codes_at((5, 5), (0, 1.5))
    truth = [objects((0, 0))]
    loss = bev_loss(output(torch.cat([first, second]).unsqueeze(0)), truth, CONFIG, groups=2)
    alone = [bev_loss(output(codes.unsqueeze(0)), truth, CONFIG) for codes in (first, second)]
    assert loss.assigned.tolist() == [[[0, -1, -1, 0]]]
    assert loss.total.item() == pytest.approx(sum(part.total.item() for part in alone) / 2)


def test_padded_queries_are_neither_matched_nor_counted() -> None:
    codes = codes_at((0, 0), (0, 3))
    given = output(codes.unsqueeze(0), padding=torch.tensor([[True, False]]))
    given.class_logits.data[:, :, 0] = math.nan
    loss = bev_loss(given, [objects((0, 0))], CONFIG)
    alone = bev_loss(output(codes[1:].unsqueeze(0)), [objects((0, 0))], CONFIG)
    assert loss.assigned.tolist() == [[[-1, 0]]]
    assert loss.total.item() == pytest.approx(alone.total.item())


def test_a_diverged_prediction_shows_in_the_loss() -> None:
    codes = codes_at((0, 0))
    codes[0, 0] = math.nan
    assert bev_loss(output(codes.unsqueeze(0)), [objects((0, 0))], CONFIG).total.isnan()


@pytest.mark.parametrize(
    ("samples", "groups", "message"),
    [(0, 1, "one entry per sample of the batch \\(1\\), got 0"), (1, 2, "groups must divide the 3 queries, got 2")],
)
def test_bad_input(samples: int, groups: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bev_loss(output(torch.zeros(1, 3, 10)), [objects()] * samples, CONFIG, groups)


def test_bad_config() -> None:
    with pytest.raises(ValueError, match="code_weights must have 10 entries, got 1"):
        BevLossConfig(code_weights=(1.0,))
    with pytest.raises(ValueError, match="box_beta must be positive, got 0"):
        BevLossConfig(box_beta=0)
