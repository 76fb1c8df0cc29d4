"""What the learned projections around the sampling promise."""

from __future__ import annotations

import pytest
import torch
from sampling_cases import problem

from bevformer_ros.model.attention.deformable_attention import DeformableAttention, deformable_attention
from bevformer_ros.model.attention.torch_sampling import LevelShapes, View, deformable_attention_in_torch


def test_runs_in_plain_torch_on_the_cpu() -> None:
    inputs = problem()
    assert torch.equal(deformable_attention(*inputs), deformable_attention_in_torch(*inputs))


def test_new_attention_looks_around_evenly() -> None:
    attention = DeformableAttention(channels=32, heads=4, levels=1, points=2)
    directions = attention.offsets.bias.view(4, 2, 2)
    torch.testing.assert_close(directions[0], torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
    torch.testing.assert_close(directions[1], torch.tensor([[0.0, 1.0], [0.0, 2.0]]), atol=1e-6, rtol=0)
    assert not attention.weights.weight.any()


def test_several_sets_are_averaged() -> None:
    """With all weights equal, two sets of points over a constant map give that constant."""
    attention = DeformableAttention(channels=8, heads=2, levels=1, points=2, sets=2)
    features = torch.ones(1, 1, 25, 8)
    view = View(torch.full((1, 1, 1, 1, 2), 0.5), torch.ones(1, 1, 1))
    with torch.no_grad():
        attention.offsets.bias.zero_()
        sampled = attention(torch.randn(1, 1, 8), features, ((5, 5),), view)
        torch.testing.assert_close(sampled, attention.value(features)[:, 0, :1])


@pytest.mark.parametrize(("sets", "shapes"), [(1, ((4, 3), (2, 2))), (2, ((4, 3),))])
@pytest.mark.parametrize("placed", [False, True])
def test_folded_it_gives_the_same(sets: int, shapes: LevelShapes, placed: bool) -> None:
    channels, queries = 16, 5
    attention = DeformableAttention(channels, 2, len(shapes), 4, query_channels=(1 + placed) * channels, sets=sets)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    query, position = torch.randn(2, queries, channels), torch.randn(queries, channels)
    features = torch.randn(2, 1, sum(height * width for height, width in shapes), channels)
    view = View(torch.rand(2, 1, queries, 2, 2), torch.rand(2, 1, queries))
    with torch.no_grad():
        asked = torch.cat([query, query + position], dim=-1) if placed else query
        expected = attention(asked, features, shapes, view)
        attention.fold(position if placed else None)
        torch.testing.assert_close(attention(query, features, shapes, view), expected, atol=1e-5, rtol=1e-5)
