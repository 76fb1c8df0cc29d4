"""Queries: padding, groups, their order; and how boxes are refined from layer to layer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bevformer_ros.model.config import BevGridConfig, DecoderConfig
from bevformer_ros.model.decoder import Decoder
from bevformer_ros.model.object_queries import ObjectQueries

GRID = BevGridConfig(rows=5, columns=7)
CHANNELS, CLASSES, LAYERS = 8, 3, 2


@pytest.fixture
def decoder() -> Decoder:
    torch.manual_seed(0)
    config = DecoderConfig(layers=LAYERS, heads=2, hidden_channels=16)
    decoder = Decoder(config, GRID, CHANNELS, CLASSES, dropout=0.0).eval()
    for parameter in decoder.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return decoder


def bev(batch: int = 1) -> Tensor:
    return torch.randn(batch, 35, CHANNELS, generator=torch.Generator().manual_seed(2))


def queries(count: int, groups: int = 1, batch: int = 1, padding: Tensor | None = None) -> ObjectQueries:
    generator = torch.Generator().manual_seed(3)
    return ObjectQueries(
        content=torch.randn(batch, count, CHANNELS, generator=generator),
        position=torch.randn(batch, count, CHANNELS, generator=generator),
        reference_points=torch.rand(batch, count, 3, generator=generator),
        padding_mask=padding,
        from_proposal=torch.zeros(count, dtype=torch.bool),
        groups=groups,
    )


def rows(given: ObjectQueries, chosen: Tensor | slice, groups: int = 1) -> ObjectQueries:
    return ObjectQueries(
        given.content[:, chosen],
        given.position[:, chosen],
        given.reference_points[:, chosen],
        None if given.padding_mask is None else given.padding_mask[:, chosen],
        given.from_proposal[chosen],
        groups,
    )


@pytest.mark.parametrize("count", [1, 6])
def test_shapes(decoder: Decoder, count: int) -> None:
    output = decoder(bev(2), queries(count, batch=2))
    assert output.class_logits.shape == (LAYERS, 2, count, CLASSES)
    assert output.box_codes.shape == (LAYERS, 2, count, 10)
    low, high = torch.tensor(GRID.range).view(2, 3)
    centers = output.box_codes[..., [0, 1, 4]]
    assert ((centers >= low) & (centers <= high)).all()


def test_padded_queries_have_no_influence(decoder: Decoder) -> None:
    padding = torch.tensor([[False, False, False, False, True, True]])
    expected = decoder(bev(), rows(queries(6), slice(0, 4)))
    given = queries(6, padding=padding)
    given.content[:, 4:] = 100.0
    padded = decoder(bev(), given)
    torch.testing.assert_close(padded.class_logits[:, :, :4], expected.class_logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(padded.box_codes[:, :, :4], expected.box_codes, atol=1e-4, rtol=1e-4)
    assert padded.padding_mask is padding


def test_order_of_queries_does_not_matter(decoder: Decoder) -> None:
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    expected, shuffled = decoder(bev(), queries(6)), decoder(bev(), rows(queries(6), order))
    torch.testing.assert_close(shuffled.class_logits, expected.class_logits[:, :, order], atol=1e-5, rtol=1e-4)


def test_groups_do_not_see_each_other(decoder: Decoder) -> None:
    given = queries(6, groups=2)
    together = decoder(bev(), given)
    alone = [decoder(bev(), rows(given, part)) for part in (slice(0, 3), slice(3, 6))]
    for name in ("class_logits", "box_codes"):
        parts = torch.cat([getattr(output, name) for output in alone], dim=2)
        torch.testing.assert_close(getattr(together, name), parts, atol=1e-4, rtol=1e-4)


def test_a_branch_without_offset_keeps_the_reference_point(decoder: Decoder) -> None:
    for branch in decoder.box_branches:
        torch.nn.init.zeros_(branch[-1].weight)
        torch.nn.init.zeros_(branch[-1].bias)
    given = queries(4)
    low, high = torch.tensor(GRID.range).view(2, 3)
    centers = decoder(bev(), given).box_codes[..., [0, 1, 4]]
    expected = (given.reference_points * (high - low) + low).expand_as(centers)
    torch.testing.assert_close(centers, expected, atol=1e-3, rtol=1e-4)


def test_no_gradient_flows_through_refined_reference_points(decoder: Decoder) -> None:
    given = queries(4)
    references = given.reference_points.clone().requires_grad_()
    output = decoder(bev(), given._replace(reference_points=references))
    (gradient,) = torch.autograd.grad(output.box_codes[0].sum(), references, retain_graph=True)
    assert gradient.abs().sum() > 0
    branch = decoder.box_branches[0][-1].weight
    (gradient,) = torch.autograd.grad(output.box_codes[1].sum(), branch)
    assert not gradient.any()
