"""Through a lens the world looks as through a pinhole, but for where its pixels lie."""

from dataclasses import replace

import numpy as np
import pytest

from bevformer_ros.lens import Lens, project, undistortion_maps, unproject
from bevformer_ros.simulation.observe import observe
from bevformer_ros.simulation.render import SCENERY, Picture, render
from bevformer_ros.simulation.rig import BASE_FROM_LIDAR, surround_rig
from bevformer_ros.simulation.wide_angle import render_through_lens
from bevformer_ros.simulation.world import START_NS, World

STAMP = START_NS + 1_000_000_000
WORLD = World.make(4, 2.0)
FRONT = surround_rig(400, 225)[0]
LENSES = [Lens("equidistant", (0.02, -0.005, 0.0, 0.0)), Lens("plumb_bob", (-0.2, 0.04, 0.001, -0.001))]


@pytest.mark.parametrize("lens", LENSES, ids=lambda lens: lens.model)
def test_undistorted_it_is_the_pinhole_s_picture(lens):
    expected = render(WORLD, FRONT, STAMP)
    bent = render_through_lens(WORLD, replace(FRONT, lens=lens), STAMP)
    columns, rows = undistortion_maps(lens, FRONT.intrinsics, FRONT.intrinsics, (400, 225))
    inside = (columns >= 0) & (columns <= 399) & (rows >= 0) & (rows <= 224)
    at = rows[inside].round().astype(int), columns[inside].round().astype(int)
    assert inside.mean() > 0.95
    assert (bent.owners[at] == expected.owners[inside]).mean() > 0.98
    assert np.abs(bent.image[at].astype(int) - expected.image[inside]).mean() < 3
    large = (expected.whole > 400) & (bent.whole > 400)
    found, known = (shares_shown(picture)[large] for picture in (bent, expected))
    assert len(known) > 5 and np.ptp(known) > 0.5
    np.testing.assert_allclose(found, known, atol=0.1)


def shares_shown(picture: Picture) -> np.ndarray:
    """(objects,) of the pixels that each has, were nothing before it."""
    counts = np.bincount(picture.owners.ravel() - SCENERY, minlength=len(picture.whole) + 1)[1:]
    return counts / picture.whole.clip(1)


def test_a_fisheye_shows_what_lies_behind_it():
    """200 degrees: an object that it shows more than 90 degrees off its axis lies behind the image plane."""
    intrinsics = np.array([[115.0, 0.0, 199.5], [0.0, 115.0, 112.0], [0.0, 0.0, 1.0]])
    fisheye = replace(FRONT, intrinsics=intrinsics, lens=Lens("equidistant", (0.0,) * 4))
    picture = render_through_lens(WORLD, fisheye, STAMP)
    rows, columns = np.nonzero(picture.owners != SCENERY)
    rays = unproject(fisheye.lens, intrinsics, np.stack([columns, rows], axis=-1))
    behind = picture.owners[rows, columns][rays[:, 2] < -0.02]
    assert behind.size
    owner = np.bincount(behind).argmax()
    camera_from_world = np.linalg.inv(WORLD.world_from_base(STAMP) @ fisheye.base_from_camera)
    corners = WORLD.objects_at(STAMP).corners()[owner] @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
    low, high = (bound(project(fisheye.lens, intrinsics, corners), axis=0) for bound in (np.nanmin, np.nanmax))
    shown = np.argwhere(picture.owners == owner)[:, ::-1]
    assert (shown >= low - 3).all() and (shown <= high + 3).all()


def test_what_the_lens_does_not_see_is_black():
    narrow = replace(FRONT, lens=Lens("equidistant", (-3.0, 0.0, 0.0, 0.0)))
    image = render_through_lens(WORLD, narrow, STAMP).image
    assert not image[0, 0].any() and image[112, 200].any()


def test_an_observation_hands_the_lens_on():
    fisheye = replace(FRONT, lens=LENSES[0], field_of_view_deg=50.0)
    (camera,) = observe(WORLD, (fisheye,), BASE_FROM_LIDAR, STAMP).frame.cameras
    assert (camera.lens, camera.field_of_view_deg) == (LENSES[0], 50.0)
