"""Sampling from a table against its definition by grid_sample."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sampling_cases import CASES, PYRAMID, Problem, gradients, problem
from torch import Tensor

from bevformer_ros.model.attention import torch_sampling
from bevformer_ros.model.attention.torch_sampling import (
    View,
    deformable_attention_in_torch,
    grid_sample_attention,
)


@pytest.mark.parametrize("inputs", CASES)
def test_equals_its_definition(inputs: Problem) -> None:
    torch.testing.assert_close(
        deformable_attention_in_torch(*inputs), grid_sample_attention(*inputs), atol=1e-5, rtol=1e-4
    )


def test_the_definition_by_hand() -> None:
    """Two images of 1 x 2 cells, 3 and 5 in the one and 7 and 9 in the other; one head, channel and point."""
    value = torch.tensor([[3.0, 5.0], [7.0, 9.0]]).view(1, 2, 2, 1, 1)
    centre_then_border = torch.tensor([[0.5, 0.5], [1.0, 0.5]]).view(1, 1, 2, 1, 2).expand(1, 2, 2, 1, 2)
    view = View(centre_then_border, torch.tensor([[[0.5, 1.0], [0.5, 0.0]]]))
    offsets = torch.zeros(1, 2, 2, 1, 1, 1)
    weights = torch.full((1, 2, 1, 1, 1), 10.0)
    between_four = 10 * (0.5 * 4 + 0.5 * 8)
    half_outside = 10 * 5 / 2
    result = grid_sample_attention(value, ((1, 2),), offsets, weights, view)
    torch.testing.assert_close(result.flatten(), torch.tensor([between_four, half_outside]))


def test_rows_beyond_one_chunk() -> None:
    inputs = problem(images=1, queries=9000, points=4, anchors=1, seen=0.9, batch=1)
    torch.testing.assert_close(
        deformable_attention_in_torch(*inputs), grid_sample_attention(*inputs), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("images", [1, 3])
def test_gradients_equal_those_of_the_definition(images: int) -> None:
    inputs = problem(images)
    ours = gradients(deformable_attention_in_torch, inputs, of_reference_points=True)
    expected = gradients(grid_sample_attention, inputs, of_reference_points=True)
    for gradient, expected_gradient in zip(ours, expected, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_positions_stay_float32_with_values_in_half_precision(dtype: torch.dtype) -> None:
    value, shapes, offsets, weights, view = problem(1, 6, ((200, 200),), points=4, anchors=1)
    expected = deformable_attention_in_torch(value, shapes, offsets, weights, view)
    actual = deformable_attention_in_torch(value.to(dtype), shapes, offsets, weights, view)
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.float(), expected, atol=0.05, rtol=0.02)


def test_a_position_that_is_not_a_number_gives_no_number() -> None:
    value, shapes, offsets, weights, view = problem(1, 6, PYRAMID, points=4, seen=1.0)
    offsets[0, 2] = torch.nan
    sampled = deformable_attention_in_torch(value, shapes, offsets, weights, view)
    assert sampled[0, 2].isnan().all()
    sampled[0, 2] = 0
    assert not sampled.isnan().any()


def test_constants_made_in_inference_mode_serve_training() -> None:
    inputs = problem(1, 6, ((9, 13),), points=4, anchors=2)
    with torch.inference_mode():
        deformable_attention_in_torch(*inputs)
    by_reference_points = gradients(deformable_attention_in_torch, inputs, of_reference_points=True)[3]
    assert by_reference_points.isfinite().all()


def test_rows_are_sampled_in_parts_on_a_device_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """All at once, those of eight released frames would need 52 GB."""
    sizes: list[int] = []
    whole = torch_sampling._sample

    def noted(table: Tensor, layout: torch_sampling._Layout, positions: Tensor, *others: Any) -> Tensor:
        sizes.append(len(positions))
        return whole(table, layout, positions, *others)

    inputs = problem()
    expected = deformable_attention_in_torch(*inputs)
    monkeypatch.setattr(torch_sampling, "_DATA_DEPENDENT_SHAPES", ())
    monkeypatch.setattr(torch_sampling, "_DEVICE_ROWS", 4)
    monkeypatch.setattr(torch_sampling, "_sample", noted)
    torch.testing.assert_close(deformable_attention_in_torch(*inputs), expected)
    assert sizes == [4, 4, 2]
