"""Geometry of the grid and the cameras, and what a query may and may not depend on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bevformer_ros.model.bev_encoder import BevEncoder, camera_view, pillar_points, project_pillars
from bevformer_ros.model.config import BevGridConfig, EncoderConfig

GRID = BevGridConfig(rows=6, columns=4)
CPU = torch.device("cpu")
IMAGE_SIZE = (64, 96)


def looking(*axes: tuple[float, float]) -> Tensor:
    """image_from_bev (1, N, 4, 4) of cameras at the origin that look along axes x, y."""
    matrices = []
    intrinsics = torch.tensor([[40.0, 0, 48, 0], [0, 40, 32, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    for x, y in axes:
        camera_from_bev = torch.tensor([[y, -x, 0, 0], [0, 0, -1, 0], [x, y, 0, 0], [0, 0, 0, 1.0]])
        matrices.append(intrinsics @ camera_from_bev)
    return torch.stack(matrices).unsqueeze(0)


AHEAD_RIGHT = looking((0.0, 1.0), (1.0, 0.0))


@pytest.fixture
def encoder() -> BevEncoder:
    torch.manual_seed(0)
    config = EncoderConfig(layers=2, heads=2, hidden_channels=16, image_levels=3, image_points=4)
    encoder = BevEncoder(config, GRID, cameras=2, channels=8, dropout=0.1).eval()
    for parameter in encoder.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return encoder


def features(batch: int, seed: int = 1) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    sizes = ((8, 12), (4, 6), (2, 3), (1, 2))
    return tuple(torch.randn(batch, 2, 8, *size, generator=generator) for size in sizes)


def encoded(encoder: BevEncoder, levels: tuple[Tensor, ...], *given: Any) -> Tensor:
    shapes = tuple((level.shape[-2], level.shape[-1]) for level in levels[:3])
    return encoder(encoder.flatten(levels), shapes, *given)


def test_pillars_stand_at_cell_centres() -> None:
    points = pillar_points(GRID, 4, CPU).view(6, 4, 4, 3)
    torch.testing.assert_close(points[0, 0, 0], torch.tensor([-51.2 + 12.8, -51.2 + 51.2 / 6, -4.5]))
    torch.testing.assert_close(points[5, 3, 3], torch.tensor([51.2 - 12.8, 51.2 - 51.2 / 6, 2.5]))
    assert (points[0, 1, 0] > points[0, 0, 0]).tolist() == [True, False, False], "a column further is further in x"


def test_a_camera_sees_what_lies_before_it() -> None:
    points = torch.tensor([[[0.0, 10.0, 0.0], [0.0, -10.0, 0.0]], [[10.0, 0.0, 0.0], [0.1, 10.0, 100.0]]])
    projection = project_pillars(points, AHEAD_RIGHT, IMAGE_SIZE, None)
    assert projection.visible.tolist() == [[[[True, False], [False, False]], [[False, False], [True, False]]]]
    torch.testing.assert_close(projection.points[0, 0, 0, 0], torch.tensor([0.5, 0.5]))


@pytest.mark.parametrize(
    ("pixel", "visible"), [((0.0, 32.0), False), ((96.0, 32.0), False), ((0.01, 32.0), True), ((48.0, 63.99), True)]
)
def test_visibility_is_strict_at_the_image_border(pixel: tuple[float, float], visible: bool) -> None:
    u, v = pixel
    point = torch.tensor([[[(u - 48) / 40 * 10, 10.0, -(v - 32) / 40 * 10]]])
    assert project_pillars(point, AHEAD_RIGHT, IMAGE_SIZE, None).visible[0, 0].item() is visible


def test_without_a_camera_nothing_is_looked_at() -> None:
    points = pillar_points(GRID, 4, CPU)
    view = camera_view(project_pillars(points, AHEAD_RIGHT, IMAGE_SIZE, torch.zeros(1, 2, dtype=torch.bool)))
    assert not view.share.any()


def test_shares_of_a_cell_sum_to_one() -> None:
    points = pillar_points(GRID, 4, CPU)
    projection = project_pillars(points, AHEAD_RIGHT, IMAGE_SIZE, None)
    sums = camera_view(projection).share.sum(dim=1)[0]
    seen = projection.visible.any(dim=-1).any(dim=1)[0]
    assert seen.any()
    assert not seen.all()
    torch.testing.assert_close(sums, seen.float())


def test_elements_of_a_batch_do_not_mix(encoder: BevEncoder) -> None:
    other_way = looking((0.0, -1.0), (-1.0, 0.0))
    together = encoded(encoder, features(2), torch.cat([AHEAD_RIGHT, other_way]), IMAGE_SIZE)
    for index, matrices in enumerate((AHEAD_RIGHT, other_way)):
        alone = encoded(encoder, tuple(level[index : index + 1] for level in features(2)), matrices, IMAGE_SIZE)
        torch.testing.assert_close(together[index : index + 1], alone, atol=1e-5, rtol=1e-4)


def test_order_of_cameras_does_not_matter(encoder: BevEncoder) -> None:
    expected = encoded(encoder, features(1), AHEAD_RIGHT, IMAGE_SIZE)
    encoder.camera_embedding.data = encoder.camera_embedding.data.flip(0)
    flipped = encoded(encoder, tuple(level.flip(1) for level in features(1)), AHEAD_RIGHT.flip(1), IMAGE_SIZE)
    torch.testing.assert_close(flipped, expected, atol=1e-5, rtol=1e-4)


def test_an_invalid_camera_has_no_influence(encoder: BevEncoder) -> None:
    valid = torch.tensor([[True, False]])
    expected = encoded(encoder, features(1), AHEAD_RIGHT, IMAGE_SIZE, valid)
    noisy = tuple(level.clone() for level in features(1))
    for level in noisy:
        level[:, 1] = 7.0
    broken = AHEAD_RIGHT.clone()
    broken[:, 1] = torch.nan
    torch.testing.assert_close(encoded(encoder, noisy, broken, IMAGE_SIZE, valid), expected)
    assert not torch.allclose(encoded(encoder, noisy, AHEAD_RIGHT, IMAGE_SIZE), expected)


def test_size_of_the_image_is_only_a_scale(encoder: BevEncoder) -> None:
    scaled = AHEAD_RIGHT.clone()
    scaled[..., :2, :] *= 2
    expected = encoded(encoder, features(1), AHEAD_RIGHT, IMAGE_SIZE)
    torch.testing.assert_close(encoded(encoder, features(1), scaled, (128, 192)), expected, atol=1e-5, rtol=1e-4)
