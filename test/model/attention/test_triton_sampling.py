"""The fused kernel against plain PyTorch: on a GPU if there is one, else on the CPU in Triton's interpreter, which
conftest.py chooses."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

from sampling_cases import CASES, PYRAMID, Problem, gradients, problem

from bevformer_ros.model.attention.torch_sampling import LevelShapes, View, deformable_attention_in_torch
from bevformer_ros.model.attention.triton_sampling import attend, fused_deformable_attention

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def on_device(inputs: Problem, dtype: torch.dtype = torch.float32) -> Problem:
    """dtype: of the value."""
    value, level_shapes, offsets, weights, view = inputs
    view = View(*(tensor.to(DEVICE) for tensor in view))
    return value.to(DEVICE, dtype), level_shapes, offsets.to(DEVICE), weights.to(DEVICE), view


@pytest.mark.parametrize("inputs", CASES)
def test_equals_plain_torch(inputs: Problem) -> None:
    inputs = on_device(inputs)
    torch.testing.assert_close(
        fused_deformable_attention(*inputs), deformable_attention_in_torch(*inputs), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("inputs", CASES)
def test_gradients_equal_those_of_plain_torch(inputs: Problem) -> None:
    inputs = on_device(inputs)
    of_reference_points = inputs[0].shape[1] == 1
    ours = gradients(fused_deformable_attention, inputs, of_reference_points)
    expected = gradients(deformable_attention_in_torch, inputs, of_reference_points)
    for gradient, expected_gradient in zip(ours, expected, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("level_shapes", "images", "sets", "points"),
    [(PYRAMID, 2, 1, 8), (PYRAMID, 2, 1, 6), (((5, 3),), 1, 2, 8), (((5, 3),), 1, 2, 6), (((5, 3),), 1, 1, 8)],
)
@pytest.mark.parametrize("has_constant", [False, True])
def test_softmax_and_constants_inside_of_the_kernel(
    level_shapes: LevelShapes, images: int, sets: int, points: int, has_constant: bool
) -> None:
    value, _, offsets, logits, view = on_device(problem(images, 6, level_shapes, points, points // 2, batch=2))
    logits = 10 * logits - 200  # far from what exp can take as it is
    samples = torch.cat([offsets, logits.unsqueeze(2)], dim=2)
    constant = torch.randn_like(samples[0]) if has_constant else None
    placed = samples if constant is None else samples + constant
    weights = placed[:, :, 2].flatten(3).unflatten(-1, (sets, -1)).softmax(dim=-1) / sets
    expected = deformable_attention_in_torch(value, level_shapes, placed[:, :, :2], weights.view_as(logits), view)
    actual = attend(value, samples, constant, *view, level_shapes, sets)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_values_in_half_precision_are_summed_in_float32(dtype: torch.dtype) -> None:
    rounded, *rest = on_device(problem(1, 3, ((5, 3),), points=2, anchors=1), dtype)
    exact = (rounded.float(), *rest)
    actual = fused_deformable_attention(rounded, *rest)
    assert actual.dtype == dtype
    # The last step rounds once, and Triton's interpreter rounds towards zero.
    torch.testing.assert_close(actual.float(), fused_deformable_attention(*exact), atol=0, rtol=torch.finfo(dtype).eps)
    ours = gradients(fused_deformable_attention, (rounded, *rest), of_reference_points=False)
    expected = gradients(fused_deformable_attention, exact, of_reference_points=False)
    for gradient, expected_gradient in zip(ours, expected, strict=True):
        torch.testing.assert_close(gradient.float(), expected_gradient, atol=0.1, rtol=0.02)


def test_offsets_and_weights_may_come_in_half_precision() -> None:
    value, shapes, offsets, weights, view = on_device(problem(1, 3, ((5, 3),), points=2, anchors=1))
    rounded = offsets.bfloat16(), weights.bfloat16()
    exact = rounded[0].float(), rounded[1].float()
    assert torch.equal(
        fused_deformable_attention(value, shapes, *rounded, view),
        fused_deformable_attention(value, shapes, *exact, view),
    )
    halves = gradients(fused_deformable_attention, (value, shapes, *rounded, view), of_reference_points=False)
    assert [gradient.dtype for gradient in halves] == [torch.float32, torch.bfloat16, torch.bfloat16]


@pytest.mark.parametrize("what", [torch.nan, torch.inf, -torch.inf])
def test_a_position_that_is_not_a_number_gives_no_number(what: float) -> None:
    value, shapes, offsets, weights, view = on_device(problem(seen=1.0))
    offsets[0, 2] = what
    sampled = fused_deformable_attention(value, shapes, offsets, weights, view)
    expected = deformable_attention_in_torch(value, shapes, offsets, weights, view)
    torch.testing.assert_close(sampled, expected, atol=1e-5, rtol=1e-4, equal_nan=True)
    assert sampled[0, 2].isnan().all() == (what != what)


def test_an_image_that_is_not_looked_into_has_no_influence() -> None:
    value, shapes, offsets, weights, view = on_device(problem(seen=1.0))
    view.share[:, 1] = 0
    expected = fused_deformable_attention(value, shapes, offsets, weights, view)
    value[:, 1] = torch.nan
    view.reference_points[:, 1] = torch.nan
    assert torch.equal(fused_deformable_attention(value, shapes, offsets, weights, view), expected)


def test_reference_points_in_several_images_get_no_gradient() -> None:
    with pytest.raises(ValueError, match="detach"):
        gradients(fused_deformable_attention, on_device(problem()), of_reference_points=True)


@pytest.mark.cuda
@pytest.mark.skipif(DEVICE.type == "cpu", reason="needs a GPU with CUDA")
def test_a_cuda_graph_follows_what_is_seen() -> None:
    value, shapes, offsets, weights, view = on_device(problem(seen=1.0))
    view.share[:, 1] = 0
    fused_deformable_attention(value, shapes, offsets, weights, view)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = fused_deformable_attention(value, shapes, offsets, weights, view)
    view.share.copy_(view.share.flip(1))
    graph.replay()
    expected = fused_deformable_attention(value, shapes, offsets, weights, view)
    torch.testing.assert_close(captured, expected)
