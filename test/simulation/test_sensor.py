"""Imperfect cameras: repeatable, off by default, and each effect does what its name says."""

from dataclasses import fields

import numpy as np
import pytest

from bevformer_ros import geometry
from bevformer_ros.simulation.observe import observe
from bevformer_ros.simulation.rig import BASE_FROM_LIDAR, surround_rig
from bevformer_ros.simulation.sensor import PERFECT, SensorConfig, expose, published
from bevformer_ros.simulation.world import START_NS, World

RIG = surround_rig(160, 90)
CAMERA = RIG[0]
GREY = np.full((90, 160, 3), 120, np.uint8)
LINE = np.zeros((90, 160, 3), np.uint8)
LINE[:, 80] = 240


def exposed(image, sensor, camera=CAMERA, seed=3, seconds=0):
    return expose(image, camera, sensor, seed, START_NS + round(seconds * 1e9))


def test_perfect_by_default():
    assert exposed(GREY, PERFECT) is GREY
    assert published(CAMERA, PERFECT, 3) is CAMERA


@pytest.mark.parametrize("name", [field.name for field in fields(SensorConfig)])
def test_what_is_negative_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} is -1"):
        SensorConfig(**{name: -1.0})


def test_noise_is_repeatable_and_new_in_every_picture():
    sensor = SensorConfig(noise=4.0)
    noise = exposed(GREY, sensor).astype(float) - GREY
    assert noise.std() == pytest.approx(4.0, rel=0.05)
    assert abs(noise.mean()) < 0.2
    np.testing.assert_array_equal(exposed(GREY, sensor), exposed(GREY, sensor))
    for other in (
        exposed(GREY, sensor, camera=RIG[1]),
        exposed(GREY, sensor, seed=4),
        exposed(GREY, sensor, seconds=1),
    ):
        assert (other != exposed(GREY, sensor)).mean() > 0.5


@pytest.mark.parametrize("sensor", [SensorConfig(defocus=2.0), SensorConfig(motion_blur=9.0)])
def test_blur_spreads_a_line_and_keeps_its_light(sensor):
    seen = np.array([exposed(LINE, sensor, camera)[45, :, 0] for camera in RIG], np.float64)
    assert (seen > 0).sum(axis=1).max() >= 5
    np.testing.assert_allclose(seen.sum(axis=1), 240, atol=8)
    np.testing.assert_allclose(seen @ np.arange(160) / seen.sum(axis=1), 80)


def test_gain_swings_slowly_and_differs_by_camera():
    sensor = SensorConfig(gain=0.3)
    levels = [[exposed(GREY, sensor, camera, seconds=second).mean() for second in range(13)] for camera in RIG]
    assert 120 / 1.31 <= np.min(levels) < 110
    assert 130 < np.max(levels) <= 120 * 1.31
    assert np.abs(np.diff(levels)).max() < 60
    assert np.std(levels, axis=0).min() > 1


def test_colour_cast_is_a_cameras_own():
    sensor = SensorConfig(colour_cast=0.1)
    casts = np.array([exposed(GREY, sensor, camera)[0, 0] for camera in RIG])
    assert np.ptp(casts.astype(int), axis=1).max() > 5
    np.testing.assert_array_equal(exposed(GREY, sensor, seconds=5), exposed(GREY, sensor))


def test_the_published_calibration_is_a_little_off_and_stays_so():
    sensor = SensorConfig(rotation=0.5, translation=0.02, focal=0.01)
    for camera in RIG:
        known = published(camera, sensor, 3)
        error = geometry.invert(camera.base_from_camera) @ known.base_from_camera
        angle = np.rad2deg(np.arccos((np.trace(error[:3, :3]) - 1) / 2))
        assert 0 < angle < 3
        assert 0 < np.linalg.norm(error[:3, 3]) < 0.1
        assert 0 < abs(known.intrinsics[0, 0] / camera.intrinsics[0, 0] - 1) < 0.05
        np.testing.assert_array_equal(published(camera, sensor, 3).base_from_camera, known.base_from_camera)


def test_observe_publishes_the_calibration_and_shows_the_truth():
    world, stamp = World.make(seed=5), START_NS + 3_000_000_000
    clean = observe(world, RIG, BASE_FROM_LIDAR, stamp)
    off = observe(world, RIG, BASE_FROM_LIDAR, stamp, SensorConfig(rotation=0.5, translation=0.02, focal=0.01))
    for camera, expected in zip(off.frame.cameras, clean.frame.cameras, strict=True):
        np.testing.assert_array_equal(camera.image, expected.image)
        assert np.abs(camera.camera_from_bev - expected.camera_from_bev).max() > 1e-3
    np.testing.assert_array_equal(off.truth.centers, clean.truth.centers)
    noisy = observe(world, RIG, BASE_FROM_LIDAR, stamp, SensorConfig(noise=3.0))
    assert (noisy.frame.cameras[0].image != clean.frame.cameras[0].image).mean() > 0.5
