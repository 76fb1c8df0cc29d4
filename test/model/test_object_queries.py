"""Object queries, and what the decoder makes of proposals among them."""

from __future__ import annotations

import math
from dataclasses import replace

import golden_cases
import pytest
import torch
from torch import Tensor

from bevformer_ros.model.box_coding import DecodedBoxes, codes_to_boxes, decode_boxes
from bevformer_ros.model.config import (
    BevGridConfig,
    DecoderConfig,
    ModelConfig,
    PerspectiveHeadConfig,
    ProposalConfig,
    QueryContent,
)
from bevformer_ros.model.decoder import Decoder, DecoderOutput
from bevformer_ros.model.object_queries import (
    LearnedQueries,
    ObjectQueries,
    ProposalQueries,
    join_queries,
    joined_logits,
)
from bevformer_ros.model.perspective_head import PerspectiveHead
from bevformer_ros.model.proposals import ProposalMaker, Proposals

CHANNELS, CLASSES, LEARNED = 32, 10, 20
GRID = BevGridConfig(rows=12, columns=10)
DECODER = DecoderConfig(layers=2, heads=4, hidden_channels=48, queries=LEARNED)
ROUNDING = 2e-6
CONTENTS: tuple[QueryContent, ...] = ("learned", "enriched")


class SecondStage:
    """Queries and decoder with random weights that make every path matter, on a random BEV map."""

    def __init__(self, content: QueryContent, groups: int = 1, batch: int = 2) -> None:
        torch.manual_seed(0)
        self.learned = LearnedQueries(LEARNED, CHANNELS, groups).eval()
        self.proposed = ProposalQueries(CHANNELS, CLASSES, ProposalConfig(query_content=content), GRID.range).eval()
        self.decoder = Decoder(DECODER, GRID, CHANNELS, CLASSES, dropout=0.0).eval()
        for parameter in self.decoder.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.15)
        self.bev = torch.randn(batch, GRID.rows * GRID.columns, CHANNELS)

    def queries(self, proposals: Proposals | None) -> ObjectQueries:
        queries = self.learned(len(self.bev))
        return queries if proposals is None else join_queries(queries, self.proposed(proposals))

    def __call__(self, proposals: Proposals | None) -> DecoderOutput:
        return self.decoder(self.bev, self.queries(proposals))


def some_proposals(count: int, batch: int = 2) -> Proposals:
    generator = torch.Generator().manual_seed(1)
    uniform = torch.rand(batch, count, 12, generator=generator)
    low, high = torch.tensor(GRID.range).view(2, 3)
    return Proposals(
        centers=low + (0.02 + 0.96 * uniform[..., :3]) * (high - low),
        sizes=0.5 + 5 * uniform[..., 3:6],
        yaws=2 * math.pi * (uniform[..., 6] - 0.5),
        velocities=10 * (uniform[..., 7:9] - 0.5),
        scores=uniform[..., 9],
        labels=(CLASSES * uniform[..., 10]).long(),
        attributes=torch.full((batch, count), -1),
        cameras=torch.zeros(batch, count, dtype=torch.long),
        valid=torch.ones(batch, count, dtype=torch.bool),
    )


def padded(proposals: Proposals, count: int) -> Proposals:
    """With `count` more slots that hold arbitrary boxes and are not valid."""
    batch = len(proposals.scores)
    rubbish = some_proposals(count, batch)._replace(valid=torch.zeros(batch, count, dtype=torch.bool))
    return Proposals(*(torch.cat(pair, dim=1) for pair in zip(proposals, rubbish, strict=True)))


def detections(output: DecoderOutput) -> DecodedBoxes:
    return decode_boxes(output.class_logits[-1], output.box_codes[-1], 50, 0.0, output.padding_mask)


def test_learned_points_cover_the_range() -> None:
    """Each tenth of the range holds some of them along either axis, but for the outermost two."""
    torch.manual_seed(0)
    points = LearnedQueries(300, 64, groups=1)(1).reference_points[0, :, :2]
    for axis in (0, 1):
        counts = torch.histc(points[:, axis], bins=10, min=0, max=1)
        assert (counts[1:-1] > 10).all()
        assert (counts[[0, -1]] > 2).all()


def test_a_residual_decoder_without_weights_returns_its_proposals() -> None:
    torch.manual_seed(0)
    proposals = some_proposals(6)
    queries = ProposalQueries(CHANNELS, CLASSES, ProposalConfig(residual=True), GRID.range)
    decoder = Decoder(DECODER, GRID, CHANNELS, CLASSES, dropout=0.0, residual=True)
    joined = join_queries(LearnedQueries(LEARNED, CHANNELS, 1)(2), queries(proposals))
    output = decoder(torch.randn(2, GRID.rows * GRID.columns, CHANNELS), joined)
    for logits, codes in zip(output.class_logits, output.box_codes, strict=True):
        boxes = codes_to_boxes(codes[:, LEARNED:])
        assert torch.allclose(boxes.centers, proposals.centers, atol=1e-4)
        assert torch.allclose(boxes.sizes, proposals.sizes, rtol=1e-5)
        assert torch.allclose(boxes.yaws, proposals.yaws, atol=1e-5)
        assert torch.allclose(boxes.velocities, proposals.velocities, atol=1e-5)
        scores = logits[:, LEARNED:].sigmoid()
        expected = proposals.scores.clamp(0.01, 0.99)
        assert torch.allclose(scores.gather(2, proposals.labels.unsqueeze(-1))[..., 0], expected, atol=1e-5)
        assert torch.allclose(logits[:, :LEARNED].sigmoid(), torch.tensor(0.01), atol=1e-5)


@pytest.mark.parametrize("logit", [-9.0, -1.0, 0.0, 4.0])
def test_a_joined_score_lies_between_its_two_sources(logit: float) -> None:
    proposals = some_proposals(6)
    logits = torch.full((2, 2, LEARNED + 6, CLASSES), logit)
    joined = joined_logits(logits, proposals).sigmoid()
    own, decoder = proposals.scores.unsqueeze(-1), torch.tensor(logit).sigmoid()
    assert torch.equal(joined[:, :, :LEARNED], logits[:, :, :LEARNED].sigmoid())
    assert (joined[:, :, LEARNED:] >= torch.minimum(own, decoder) - 1e-5).all()
    assert (joined[:, :, LEARNED:] <= torch.maximum(own, decoder) + 1e-5).all()


@pytest.mark.parametrize("groups", [1, 3])
def test_learned_queries(groups: int) -> None:
    queries = LearnedQueries(5, 8, groups)

    assert queries.train()(2).content.shape == (2, 5 * groups, 8)
    assert queries(2).groups == groups
    evaluated = queries.eval()(2)
    assert evaluated.groups == 1
    assert evaluated.reference_points.shape == (2, 5, 3)
    assert torch.equal(torch.cat([evaluated.position[0], evaluated.content[0]], -1), queries.embedding.weight[:5])
    assert evaluated.padding_mask is None
    assert not evaluated.from_proposal.any()


def test_proposals_join_every_group() -> None:
    learned = LearnedQueries(2, CHANNELS, groups=3).train()(batch_size=1)
    proposals = padded(some_proposals(1, batch=1), 1)
    proposed = ProposalQueries(CHANNELS, CLASSES, ProposalConfig(query_content="learned"), GRID.range)(proposals)

    joined = join_queries(learned, proposed)

    assert joined.groups == 3
    assert joined.from_proposal.tolist() == 3 * [False, False, True, True]
    assert joined.padding_mask is not None
    assert joined.padding_mask.tolist() == [3 * [False, False, False, True]]
    for group in range(3):
        rows = slice(4 * group, 4 * group + 4)
        for name in ("content", "position", "reference_points"):
            own = getattr(learned, name)[:, 2 * group : 2 * group + 2]
            assert torch.equal(getattr(joined, name)[:, rows], torch.cat([own, getattr(proposed, name)], dim=1))


def test_a_proposals_position_is_made_of_waves_from_the_range_to_its_128th() -> None:
    """x, y and z lie at 1/8 of the range: eight octaves of sines, then of cosines, one coordinate after the other."""
    queries = ProposalQueries(CHANNELS, CLASSES, ProposalConfig(query_content="learned"), GRID.range)
    queries.position = torch.nn.Identity()
    low, high = torch.tensor(GRID.range).view(2, 3)
    eighth = (low + (high - low) / 8).expand(1, 1, 3)
    position = queries(some_proposals(1, batch=1)._replace(centers=eighth)).position.view(3, 16)
    half = math.sqrt(0.5)
    expected = torch.tensor([half, 1.0, *[0.0] * 6, half, 0.0, -1.0, *[1.0] * 5])
    torch.testing.assert_close(position, expected.expand(3, 16), atol=1e-3, rtol=0)


@pytest.mark.parametrize("content", CONTENTS)
def test_identity_regression_gives_the_proposals_centres(content: QueryContent) -> None:
    stage, proposals = SecondStage(content), some_proposals(7)
    for branch in stage.decoder.box_branches:
        torch.nn.init.zeros_(branch[-1].weight)
        torch.nn.init.zeros_(branch[-1].bias)

    output = stage(proposals)

    centers = output.box_codes[-1][:, output.from_proposal][..., [0, 1, 4]]
    assert torch.allclose(centers, proposals.centers, atol=1e-4)


@pytest.mark.parametrize("content", CONTENTS)
def test_zero_proposals_are_the_one_stage_result(content: QueryContent) -> None:
    stage = SecondStage(content)
    one_stage = stage(None)
    nothing = some_proposals(0)
    all_padded = padded(nothing, 6)

    for proposals in (nothing, all_padded):
        output = stage(proposals)
        learned = ~output.from_proposal
        assert_close(output.class_logits[:, :, learned], one_stage.class_logits)
        assert_close(output.box_codes[:, :, learned], one_stage.box_codes)
        assert_same_detections(detections(output), detections(one_stage))


@pytest.mark.parametrize("content", CONTENTS)
def test_padding_changes_nothing(content: QueryContent) -> None:
    stage, proposals = SecondStage(content), some_proposals(5)
    plain, longer = stage(proposals), stage(padded(proposals, 9))

    count = LEARNED + 5
    assert_close(longer.class_logits[:, :, :count], plain.class_logits)
    assert_close(longer.box_codes[:, :, :count], plain.box_codes)
    assert_same_detections(detections(longer), detections(plain))


@pytest.mark.parametrize("content", CONTENTS)
def test_the_order_of_proposals_changes_nothing(content: QueryContent) -> None:
    stage, proposals = SecondStage(content), padded(some_proposals(6), 3)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(2))
    shuffled = Proposals(*(values[:, order] for values in proposals))

    plain, other = stage(proposals), stage(shuffled)

    rows = torch.cat([torch.arange(LEARNED), LEARNED + order])
    assert_close(other.class_logits, plain.class_logits[:, :, rows])
    assert_close(other.box_codes, plain.box_codes[:, :, rows])
    assert_same_detections(detections(other), detections(plain))


@pytest.mark.parametrize("content", CONTENTS)
def test_proposals_matter(content: QueryContent) -> None:
    """Without this the tests above would pass for a decoder that ignores proposals."""
    stage = SecondStage(content)
    one_stage, two_stage = stage(None), stage(some_proposals(5))
    assert (two_stage.class_logits[:, :, :LEARNED] - one_stage.class_logits).abs().max() > 1e-3
    boxes = detections(two_stage)
    assert two_stage.from_proposal[boxes.query].any()


def test_groups_do_not_see_each_other_but_the_same_proposals() -> None:
    """The first group in training is what evaluation computes."""
    stage, proposals = SecondStage("enriched", groups=3), padded(some_proposals(4), 2)
    evaluated = stage(proposals)
    stage.learned.train()
    trained = stage(proposals)

    count = LEARNED + 6
    assert trained.class_logits.shape[2] == 3 * count
    assert torch.allclose(trained.class_logits[:, :, :count], evaluated.class_logits, atol=1e-5)
    assert not torch.allclose(trained.class_logits[:, :, count : 2 * count], evaluated.class_logits, atol=1e-3)


def test_enriched_content_knows_class_score_size_and_heading() -> None:
    torch.manual_seed(0)
    enriched = ProposalQueries(CHANNELS, CLASSES, ProposalConfig(query_content="enriched"), GRID.range)
    learned = ProposalQueries(CHANNELS, CLASSES, ProposalConfig(query_content="learned"), GRID.range)
    proposals = some_proposals(1, batch=1)
    changes: dict[str, Tensor] = {
        "labels": (proposals.labels + 1) % CLASSES,
        "scores": proposals.scores / 2,
        "sizes": proposals.sizes * 1.5,
        "yaws": proposals.yaws + 1,
    }
    for name, values in changes.items():
        changed = proposals._replace(**{name: values})
        assert not torch.allclose(enriched(changed).content, enriched(proposals).content), name
        assert torch.equal(learned(changed).content, learned(proposals).content), name


def head_and_proposals() -> tuple[PerspectiveHead, Proposals]:
    """A random head that sees something everywhere."""
    torch.manual_seed(3)
    config = PerspectiveHeadConfig(strides=(8, 16), depth_means=(20.0, 10.0), depth_deviations=(5.0, 3.0))
    head = PerspectiveHead(config, 8)
    maker = ProposalMaker(config, ProposalConfig(score_threshold=0.0, minimum_score=0.0, count=30), GRID.range)
    features = [torch.randn(2, 8, 6, 10), torch.randn(2, 8, 3, 5)]
    intrinsics = torch.tensor([[60.0, 0, 40], [0, 60, 24], [0, 0, 1]]).expand(1, 2, 3, 3)
    camera_from_bev = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]).expand(1, 2, 4, 4)
    proposals = maker(head(features), intrinsics, camera_from_bev)
    assert proposals.valid.sum() > 10
    return head, proposals


def reached(head: PerspectiveHead) -> set[str]:
    """Parts of the head with a gradient other than zero."""
    return {
        name.split(".")[0]
        for name, parameter in head.named_parameters()
        if parameter.grad is not None and parameter.grad.abs().max() > 0
    }


def test_the_heads_own_loss_reaches_all_of_it() -> None:
    torch.manual_seed(3)
    head = PerspectiveHead(replace(PerspectiveHeadConfig(), tower_depth=1), 8)
    outputs = head([torch.randn(1, 8, 4, 6) for _ in range(5)])
    sum((values**2).sum() for level in outputs for values in level).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


# What the queries teach the head; depth and everything that only makes the 2D box learn from the head's own loss.
THROUGH_ENRICHED_QUERIES = {
    "class_tower",
    "box2d_tower",
    "box3d_tower",
    "class_logits",
    "centerness",
    "confidence",
    "confidence_scales",
    "size",
    "size_scales",
    "quaternion",
    "center_offset",
    "center_offset_scales",
}


@pytest.mark.parametrize(("content", "expected"), [("learned", set()), ("enriched", THROUGH_ENRICHED_QUERIES)])
def test_what_the_decoders_loss_reaches_through_the_queries(content: QueryContent, expected: set[str]) -> None:
    head, proposals = head_and_proposals()
    stage = SecondStage(content, batch=1)

    output = stage(proposals)
    (output.class_logits.sum() + (output.box_codes**2).sum()).backward()

    assert reached(head) == expected
    for name, parameter in head.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    for name, parameter in [*stage.proposed.named_parameters(), *stage.learned.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_reference_points_stay_float32(precision: torch.dtype) -> None:
    stage, proposals = SecondStage("enriched"), some_proposals(5)
    expected = stage.queries(proposals).reference_points
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        actual = stage.queries(proposals).reference_points
    assert actual.dtype == torch.float32
    assert torch.equal(actual, expected)


WRONG = {
    "no proposals": ({"two_stage": True}, "two_stage needs proposals"),
    "no head": ({"proposals": ProposalConfig(), "perspective": None}, "need a perspective head"),
    "no level": ({"proposals": ProposalConfig(first_level=5)}, "leaves none of the 5 levels"),
}


@pytest.mark.parametrize(("fields", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_two_stage_configuration(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig(name="wrong", **fields)


def assert_close(actual: Tensor, expected: Tensor) -> None:
    """Up to float32 rounding, relative to the largest value: the attention's sums run in another order."""
    golden_cases.assert_equal(actual, expected, "decoder output", tolerance=ROUNDING)


def assert_same_detections(actual: DecodedBoxes, expected: DecodedBoxes) -> None:
    """In any order of equal scores; where one has more slots, they are empty."""
    for batch in range(len(expected.scores)):
        left, right = (
            (boxes.scores[batch, boxes.valid[batch]], boxes.boxes.centers[batch, boxes.valid[batch]])
            for boxes in (actual, expected)
        )
        assert torch.allclose(left[0], right[0], atol=1e-6)
        assert torch.allclose(left[1], right[1], atol=1e-4)
        assert torch.equal(actual.labels[batch, actual.valid[batch]], expected.labels[batch, expected.valid[batch]])
