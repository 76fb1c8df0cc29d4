"""Sampling against its plain definition by grid_sample, and what the learned projections promise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from bevformer_ros.model.deformable_attention import DeformableAttention, LevelShapes, Rows, deformable_attention

HEADS, CHANNELS = 4, 8
PYRAMID: LevelShapes = ((7, 11), (4, 6), (2, 3), (1, 2))


def plain(value: Tensor, level_shapes: LevelShapes, offsets: Tensor, weights: Tensor, rows: Rows) -> Tensor:
    """The same sum, one row, head, level and point at a time."""
    anchors = rows.reference_points.shape[1]
    levels = value.split([height * width for height, width in level_shapes], dim=1)
    outputs = []
    for query, image, references in zip(*rows, strict=True):
        heads = []
        for head in range(weights.shape[1]):
            total = value.new_zeros(value.shape[-1])
            for level, (height, width) in enumerate(level_shapes):
                feature = levels[level][image, :, head].T.view(1, -1, height, width)
                size = torch.tensor([width, height])
                for point in range(weights.shape[3]):
                    place = references[point % anchors] + offsets[query, :, head, level, point] / size
                    sample = functional.grid_sample(feature, (2 * place - 1).view(1, 1, 1, 2), align_corners=False)
                    total = total + weights[query, head, level, point] * sample.flatten()
            heads.append(total)
        outputs.append(torch.cat(heads))
    return torch.stack(outputs) if outputs else value.new_zeros(0, value.shape[2] * value.shape[3])


def problem(rows: int, level_shapes: LevelShapes, points: int, anchors: int, spread: float) -> tuple:
    generator = torch.Generator().manual_seed(rows)
    queries, images = 5, 3
    cells = sum(height * width for height, width in level_shapes)
    value = torch.randn(images, cells, HEADS, CHANNELS, generator=generator)
    offsets = spread * torch.randn(queries, 2, HEADS, len(level_shapes), points, generator=generator)
    weights = torch.rand(queries, HEADS, len(level_shapes), points, generator=generator)
    chosen = Rows(
        torch.randint(queries, (rows,), generator=generator),
        torch.randint(images, (rows,), generator=generator),
        torch.rand(rows, anchors, 2, generator=generator),
    )
    return value, level_shapes, offsets, weights, chosen


@pytest.mark.parametrize(
    ("rows", "level_shapes", "points", "anchors", "spread"),
    [
        pytest.param(0, PYRAMID, 8, 4, 1.0, id="no rows"),
        pytest.param(1, ((1, 1),), 1, 1, 0.3, id="one cell"),
        pytest.param(6, ((5, 3),), 4, 1, 1.0, id="one level"),
        pytest.param(6, PYRAMID, 8, 4, 1.0, id="pyramid and pillar"),
        pytest.param(6, PYRAMID, 8, 2, 8.0, id="mostly outside"),
        pytest.param(6, PYRAMID, 4, 4, 1e6, id="far outside"),
    ],
)
def test_equals_its_plain_definition(
    rows: int, level_shapes: LevelShapes, points: int, anchors: int, spread: float
) -> None:
    inputs = problem(rows, level_shapes, points, anchors, spread)
    torch.testing.assert_close(deformable_attention(*inputs), plain(*inputs), atol=1e-5, rtol=1e-4)


def test_rows_beyond_one_chunk() -> None:
    value, shapes, offsets, weights, _ = problem(1, PYRAMID, 4, 1, 1.0)
    query = torch.arange(9000) % 5
    rows = Rows(query, query % 3, (query.view(-1, 1, 1) / 5).expand(-1, 1, 2))
    sampled = deformable_attention(value, shapes, offsets, weights, rows)
    assert sampled.shape == (9000, HEADS * CHANNELS)
    first = plain(value, shapes, offsets, weights, Rows(*(part[:15] for part in rows)))
    torch.testing.assert_close(sampled[-15:], first, atol=1e-5, rtol=1e-4)


def test_gradients_equal_those_of_the_plain_definition() -> None:
    value, shapes, offsets, weights, rows = problem(6, PYRAMID, 8, 4, 1.0)
    gradients = []
    for function in (deformable_attention, plain):
        inputs = [tensor.clone().requires_grad_() for tensor in (value, offsets, weights, rows.reference_points)]
        output = function(inputs[0], shapes, inputs[1], inputs[2], rows._replace(reference_points=inputs[3]))
        gradients.append(torch.autograd.grad(output.sin().sum(), inputs))
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-3)


def test_positions_stay_float32_with_values_in_half_precision() -> None:
    value, shapes, offsets, weights, rows = problem(6, ((200, 200),), 4, 1, 1.0)
    expected = deformable_attention(value, shapes, offsets, weights, rows)
    actual = deformable_attention(value.bfloat16(), shapes, offsets, weights, rows)
    assert actual.dtype == torch.bfloat16
    torch.testing.assert_close(actual.float(), expected, atol=0.05, rtol=0.02)


def test_a_position_that_is_not_a_number_gives_no_number() -> None:
    value, shapes, offsets, weights, rows = problem(6, PYRAMID, 4, 1, 1.0)
    offsets[rows.query[0]] = torch.nan
    sampled = deformable_attention(value, shapes, offsets, weights, rows)
    assert sampled[0].isnan().all()
    assert not sampled[rows.query != rows.query[0]].isnan().any()


def test_constants_made_in_inference_mode_serve_training() -> None:
    value, shapes, offsets, weights, rows = problem(6, ((9, 13),), 4, 2, 1.0)
    with torch.inference_mode():
        deformable_attention(value, shapes, offsets, weights, rows)
    references = rows.reference_points.clone().requires_grad_()
    output = deformable_attention(value, shapes, offsets, weights, rows._replace(reference_points=references))
    assert torch.autograd.grad(output.sum(), references)[0].isfinite().all()


def test_new_attention_looks_around_evenly() -> None:
    attention = DeformableAttention(channels=HEADS * CHANNELS, heads=HEADS, levels=1, points=2)
    directions = attention.offsets.bias.view(HEADS, 2, 2)
    torch.testing.assert_close(directions[0], torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
    torch.testing.assert_close(directions[1], torch.tensor([[0.0, 1.0], [0.0, 2.0]]), atol=1e-6, rtol=0)
    assert not attention.weights.weight.any()


def test_several_sets_are_averaged() -> None:
    """With all weights equal, two sets of points over a constant map give that constant."""
    attention = DeformableAttention(channels=8, heads=2, levels=1, points=2, sets=2)
    features = torch.ones(1, 25, 8)
    rows = Rows(torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long), torch.full((1, 1, 2), 0.5))
    with torch.no_grad():
        attention.offsets.bias.zero_()
        sampled = attention(torch.randn(1, 8), features, ((5, 5),), rows)
        torch.testing.assert_close(sampled, attention.value(features)[:, 0])
