"""Proposals on the BEV map: what is written where, and that it stays at its place when the car drives on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support import REPOSITORY
from torch import Tensor

from bevformer_ros.config import load_yaml
from bevformer_ros.inference.bev_buffer import warp_bev
from bevformer_ros.inference.frame_history import planar_motions
from bevformer_ros.model.config import BevGridConfig, ModelConfig, TemporalConfig
from bevformer_ros.model.network import ImageFeatures, NetworkInputs, build_network
from bevformer_ros.model.proposal_map import ProposalMap
from bevformer_ros.model.proposals import Proposals

CHANNELS = 6
GRID = BevGridConfig(rows=12, columns=10, range=(-20, -24, -5, 20, 24, 3))  # cells of 4 m


def proposals(*places: tuple[float, float], valid: bool = True) -> Proposals:
    """Equal boxes at the places, of one sample."""
    count = len(places)
    centers = torch.cat([torch.tensor(places).view(1, count, 2), torch.zeros(1, count, 1)], dim=2)
    numbers = torch.zeros(1, count, dtype=torch.int64)
    return Proposals(
        centers=centers,
        sizes=torch.ones(1, count, 3),
        yaws=torch.zeros(1, count),
        velocities=torch.ones(1, count, 2),
        scores=torch.full((1, count), 0.5),
        labels=numbers,
        attributes=numbers,
        cameras=numbers,
        valid=torch.full((1, count), valid),
    )


def written(given: Proposals) -> Tensor:
    """(1, cells, CHANNELS) by a map that has learned to write ones."""
    proposal_map = ProposalMap(CHANNELS, 10, GRID)
    torch.nn.init.ones_(proposal_map.output[1].bias)
    with torch.no_grad():
        return proposal_map(given)


def center_of_mass(cells: Tensor) -> list[float]:
    """x and y in metres of what is written in the first channel."""
    weights = cells[0, :, 0].view(GRID.rows, GRID.columns)
    x = torch.arange(GRID.columns) * 4 - 18.0
    y = torch.arange(GRID.rows) * 4 - 22.0
    return [((weights * x).sum() / weights.sum()).item(), ((weights * y[:, None]).sum() / weights.sum()).item()]


@pytest.mark.parametrize("given", [proposals(), proposals((1, 2), valid=False), proposals((100, 0))])
def test_nothing_is_written_without_a_proposal_in_range(given: Proposals) -> None:
    assert written(given).shape == (1, 120, CHANNELS)
    assert not written(given).any()


def test_it_starts_as_writing_nothing() -> None:
    assert not ProposalMap(CHANNELS, 10, GRID)(proposals((1, 2))).any()


@pytest.mark.parametrize("place", [(-2.0, 2.0), (0.0, 0.0), (3.3, -7.9)])
def test_four_cells_share_a_proposal_about_its_centre(place: tuple[float, float]) -> None:
    cells = written(proposals(place))
    assert cells.sum().item() == pytest.approx(CHANNELS)
    assert cells[0, :, 0].count_nonzero() == (1 if place == (-2.0, 2.0) else 4)
    assert center_of_mass(cells) == pytest.approx(place, abs=1e-5)


def test_proposals_in_one_cell_add_up() -> None:
    torch.testing.assert_close(written(proposals((1, 2), (1, 2))), 2 * written(proposals((1, 2))))


def test_it_stays_where_it_is_when_the_car_drives_on() -> None:
    """Three metres forward, one to the right: seen from there it lies that much farther back and to the left."""
    past_from_now = np.eye(4)
    past_from_now[:2, 3] = 1.0, 3.0
    motions = torch.from_numpy(planar_motions(past_from_now[None], GRID)).float()
    warped = warp_bev(written(proposals((3.3, -7.9))), motions, GRID)
    assert center_of_mass(warped) == pytest.approx((2.3, -10.9), abs=1e-4)


def with_map() -> ModelConfig:
    config = load_yaml(ModelConfig, REPOSITORY / "config" / "models" / "tiny_two_stage.yaml")
    assert config.proposals is not None
    warp = TemporalConfig((-1, 0), mode="warp", channels=8, blocks=1)
    return replace(config, temporal=warp, proposals=replace(config.proposals, on_bev_map=True))


def test_a_past_frame_that_is_encoded_anew_would_have_lost_them() -> None:
    config = with_map()
    with pytest.raises(ValueError, match="on_bev_map needs temporal.mode warp, got 'reencode'"):
        replace(config, temporal=replace(config.temporal, mode="reencode"))


def test_the_network_writes_them_on_the_map_that_is_remembered() -> None:
    config = with_map()
    network = build_network(config).eval()
    assert network.proposal_map is not None
    torch.nn.init.ones_(network.proposal_map.output[1].bias)
    width, height = config.image.padded_size
    cameras = len(config.cameras)
    strides = [8 << level for level in range(config.encoder.image_levels)]
    levels = tuple(torch.zeros(1, cameras, config.channels, height // each, width // each) for each in strides)
    all_valid, at_origin = torch.ones(1, cameras, dtype=torch.bool), torch.eye(4).expand(1, cameras, 4, 4)
    inputs = NetworkInputs(None, all_valid, None, None, at_origin)
    with torch.no_grad():
        plain, drawn = (
            network.lift(ImageFeatures(levels, None, given), inputs).bev for given in (None, proposals((1, 2)))
        )
    assert (drawn - plain).sum().item() == pytest.approx(config.channels, rel=1e-3)
