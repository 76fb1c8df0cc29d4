"""What the learned projections around the sampling promise."""

from __future__ import annotations

import sys

import pytest
import torch
from sampling_cases import problem

from bevformer_ros.model.attention import deformable_attention as module
from bevformer_ros.model.attention.deformable_attention import DeformableAttention, deformable_attention
from bevformer_ros.model.attention.torch_sampling import View, deformable_attention_in_torch


def test_runs_in_plain_torch_on_the_cpu() -> None:
    inputs = problem()
    assert torch.equal(deformable_attention(*inputs), deformable_attention_in_torch(*inputs))


def test_says_once_that_triton_is_missing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "bevformer_ros.model.attention.triton_sampling", None)
    module._fused_sampling.cache_clear()
    assert [module._fused_sampling(), module._fused_sampling()] == [None, None]
    module._fused_sampling.cache_clear()
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "deformable attention on the GPU is not fused, without Triton"
    ]


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
