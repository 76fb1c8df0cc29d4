"""Frames and truth of the world: they must agree with one another and with the rig that the node reads."""

import numpy as np
import pytest
from support import REPOSITORY

from bevformer_ros import geometry
from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.simulation.observe import observe, visibility_levels
from bevformer_ros.simulation.render import render
from bevformer_ros.simulation.rig import BASE_FROM_LIDAR, surround_rig
from bevformer_ros.simulation.world import START_NS, World

RIG_FILE = REPOSITORY / "config/rigs/nuscenes.yaml"

STAMP = START_NS + 3_000_000_000


@pytest.fixture(scope="module")
def world():
    return World.make(seed=5)


@pytest.fixture(scope="module")
def rig():
    return surround_rig(400, 225)


@pytest.fixture(scope="module")
def observation(world, rig):
    return observe(world, rig, BASE_FROM_LIDAR, STAMP)


def test_size_must_be_positive():
    with pytest.raises(ValueError, match="0x225"):
        surround_rig(0, 225)


def test_rig_agrees_with_the_rig_file(rig):
    config = load_yaml(RigConfig, RIG_FILE)
    assert [camera.name for camera in rig] == [camera.name for camera in config.cameras]
    for simulated, configured in zip(rig, config.cameras, strict=True):
        assert simulated.exposure_offset_ns == round(configured.exposure_offset_ms * 1e6)


def test_intrinsics_scale_with_the_image():
    full, half = surround_rig(1600, 900)[0], surround_rig(800, 450)[0]
    point = np.array([1.3, -0.4, 9.0])
    (full_pixel, _), (half_pixel, _) = (geometry.project(camera.intrinsics, point) for camera in (full, half))
    np.testing.assert_allclose((full_pixel + 0.5) / 2, half_pixel + 0.5)


def test_images_are_repeatable_and_exposed_at_their_own_stamps(world, rig, observation):
    for camera, image in zip(rig, observation.frame.cameras, strict=True):
        assert image.stamp_ns == STAMP + camera.exposure_offset_ns
        np.testing.assert_array_equal(image.image, render(world, camera, image.stamp_ns).image)
    late = render(world, rig[4], STAMP).image
    assert (late != observation.frame.cameras[4].image).any()


def test_truth_is_where_the_pixels_are(world, rig, observation):
    """The centre of a truth box, projected with the frame's own camera_from_bev, lies on pixels of that object;
    things that move during the exposure offset are left out, as the box stands at the reference stamp."""
    hits = checked = 0
    standing = np.linalg.norm(observation.truth.velocities, axis=1) == 0
    for camera, image in zip(rig, observation.frame.cameras, strict=True):
        owners = render(world, camera, image.stamp_ns).owners
        corners = geometry.apply(image.camera_from_bev, observation.truth.corners())
        pixels, depths = geometry.project(image.intrinsics, corners)
        for row in np.flatnonzero((depths > 0.5).all(axis=1) & standing):
            own = np.argwhere(owners == observation.object_ids[row])[:, ::-1]
            if len(own) == 0:
                continue
            checked += 1
            low, high = pixels[row].min(axis=0) - 1, pixels[row].max(axis=0) + 1
            hits += bool((own >= low).all() and (own <= high).all())
    assert checked > 10
    assert hits == checked


def test_truth_is_in_range_visible_and_over_ground(world, observation):
    truth = observation.truth
    assert len(truth) > 5
    assert (np.abs(truth.centers[:, :2]) <= 51.2).all()
    np.testing.assert_allclose(truth.centers[:, 2] - truth.sizes[:, 2] / 2, -1.84023, atol=1e-9)
    everything = world.objects_at(STAMP)
    speeds = np.linalg.norm(everything.velocities[observation.object_ids], axis=1)
    np.testing.assert_allclose(np.linalg.norm(truth.velocities, axis=1), speeds, atol=1e-9)
    assert len(truth) < len(everything)


def test_visible_says_which_camera_shows_an_object(world, rig, observation):
    assert observation.visible.shape == (len(observation.truth), len(rig))
    assert observation.visible.any(axis=1).all()
    assert not observation.visible.all(axis=1).any()
    for column, (camera, image) in enumerate(zip(rig, observation.frame.cameras, strict=True)):
        owners = render(world, camera, image.stamp_ns).owners
        pixels = np.array([(owners == identity).sum() for identity in observation.object_ids])
        np.testing.assert_array_equal(observation.visible[:, column], pixels >= 1.2e-4 * owners.size)


@pytest.mark.parametrize(
    ("shares", "levels"),
    [([], []), ([0.0, 0.4, 0.41, 0.6, 0.61, 0.8, 0.81, 1.0], [1, 1, 2, 2, 3, 3, 4, 4])],
)
def test_visibility_is_graded_as_nuscenes_does(shares, levels):
    assert visibility_levels(np.array(shares)).tolist() == levels


def test_visibility_counts_the_pixels_of_all_cameras(world, rig, observation):
    shown, whole = np.zeros((2, len(observation.truth)))
    for camera, image in zip(rig, observation.frame.cameras, strict=True):
        picture = render(world, camera, image.stamp_ns)
        shown += [(picture.owners == identity).sum() for identity in observation.object_ids]
        whole += picture.whole[observation.object_ids]
    assert (shown <= whole).all()
    np.testing.assert_array_equal(observation.visibility, visibility_levels(shown / whole))
    assert len(np.unique(observation.visibility)) > 2
