"""Augmented frames are true views: what is drawn into the image moves as the boxes do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from drives import NAMES, WIDTH, labelled_frame, pixels_of

from bevformer_ros import geometry
from bevformer_ros.lens import Lens
from bevformer_ros.training.augmentation import (
    ClipAugmentation,
    mirrored,
    mirrored_order,
    photographed,
    turned,
)
from bevformer_ros.training.config import AugmentationConfig
from bevformer_ros.training.labelled_frame import LabelledFrame

CAR, CONE = 0, 1
RIGHT, LEFT = 0, 1


def camera_of(labelled: LabelledFrame, index: int):
    camera = labelled.frame.cameras[index]
    assert camera is not None
    return camera


def static_places(labelled: LabelledFrame) -> np.ndarray:
    return geometry.apply(labelled.frame.world_from_bev, labelled.truth.centers)


@pytest.mark.parametrize(
    ("names", "order"),
    [
        ((), []),
        (("CAM_FRONT",), [0]),
        (("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_LEFT", "CAM_FRONT_LEFT", "CAM_BACK_RIGHT"), [0, 3, 4, 1, 2]),
        (("LEFT_ONLY",), [0]),
    ],
)
def test_order_in_the_mirror(names: tuple[str, ...], order: list[int]) -> None:
    assert mirrored_order(names) == order


def test_mirror_swaps_left_and_right_of_images_boxes_and_cameras() -> None:
    original = labelled_frame()
    result = mirrored(original, NAMES)
    assert [camera.name for camera in result.frame.cameras if camera] == list(NAMES)
    assert np.array_equal(camera_of(result, LEFT).image, camera_of(original, RIGHT).image[:, ::-1])
    assert np.array_equal(result.visible, original.visible[:, ::-1])
    u, v = pixels_of(original, RIGHT)[CAR].T
    mirrored_u, mirrored_v = pixels_of(result, LEFT)[CAR].T
    # The eight corners are the same, but mirrored ones are numbered differently.
    assert np.allclose(np.sort(mirrored_u), np.sort(WIDTH - 1 - u))
    assert np.allclose(np.sort(mirrored_v), np.sort(v))
    assert np.allclose(result.truth.velocities[CAR], (-1, 3))


def test_mirroring_twice_changes_nothing() -> None:
    original = labelled_frame(2)
    twice = mirrored(mirrored(original, NAMES), NAMES)
    assert np.allclose(twice.truth.corners(), original.truth.corners())
    assert np.allclose(twice.frame.world_from_bev, original.frame.world_from_bev)
    assert np.allclose(camera_of(twice, LEFT).camera_from_bev, camera_of(original, LEFT).camera_from_bev)
    assert np.array_equal(camera_of(twice, LEFT).image, camera_of(original, LEFT).image)


def test_mirror_refuses_a_distorted_image() -> None:
    original = labelled_frame()
    camera = replace(camera_of(original, RIGHT), lens=Lens("plumb_bob", (0.1, 0.0, 0.0, 0.0)))
    frame = replace(original.frame, cameras=(camera, original.frame.cameras[LEFT]))
    with pytest.raises(ValueError, match="CAM_FRONT_RIGHT.*rectify"):
        mirrored(replace(original, frame=frame), NAMES)


@pytest.mark.parametrize("turn", [0.0, 0.7, -0.4])
def test_a_turn_leaves_every_pixel_where_it_is(turn: float) -> None:
    original = labelled_frame()
    result = turned(original, turn)
    for camera in (RIGHT, LEFT):
        assert np.allclose(pixels_of(result, camera), pixels_of(original, camera), equal_nan=True)
    bearing = np.arctan2(*result.truth.centers[CAR, 1::-1]) - np.arctan2(*original.truth.centers[CAR, 1::-1])
    assert np.isclose(bearing, turn)


@pytest.mark.parametrize("augment", [lambda x: mirrored(x, NAMES), lambda x: turned(x, 0.6)])
def test_what_stands_still_does_so_in_the_augmented_world(augment) -> None:
    def cone_in_world(index: int) -> np.ndarray:
        labelled = labelled_frame(index)
        world_from_bev = labelled.frame.world_from_bev
        place = geometry.apply(geometry.invert(world_from_bev), np.array([[-3.0, 9.0, 0.4]]))
        truth = replace(labelled.truth, centers=np.concatenate([labelled.truth.centers[:1], place]))
        return static_places(augment(replace(labelled, truth=truth)))[CONE]

    assert np.allclose(cone_in_world(0), cone_in_world(3))


def test_zoom_and_shift_move_image_and_intrinsics_alike() -> None:
    camera = camera_of(labelled_frame(), RIGHT)
    image = np.zeros_like(camera.image)
    image[60, 120] = 255
    result = photographed(replace(camera, image=image), 1.5, np.array([0.05, -0.1]), 1.0)
    ray = np.linalg.solve(camera.intrinsics, (120, 60, 1))
    u, v = (result.intrinsics @ ray)[:2]
    total = result.image[..., 0].astype(float)
    assert abs((total.sum(0) * np.arange(total.shape[1])).sum() / total.sum() - u) < 0.6
    assert abs((total.sum(1) * np.arange(total.shape[0])).sum() / total.sum() - v) < 0.6


def test_gain_brightens_and_saturates() -> None:
    camera = camera_of(labelled_frame(), RIGHT)
    image = np.full_like(camera.image, 100)
    image[0] = 250
    result = photographed(replace(camera, image=image), 1.0, np.zeros(2), 1.2).image
    assert (result[1:] == 120).all()
    assert (result[0] == 255).all()


def test_augmentation_that_is_off_changes_nothing() -> None:
    original = labelled_frame()
    augment = ClipAugmentation.draw(AugmentationConfig(), 2, np.random.default_rng(0))
    result = augment(original, NAMES)
    assert np.array_equal(camera_of(result, RIGHT).image, camera_of(original, RIGHT).image)
    assert np.allclose(result.truth.corners(), original.truth.corners())


def test_a_missing_camera_stays_missing() -> None:
    original = labelled_frame()
    frame = replace(original.frame, cameras=(original.frame.cameras[RIGHT], None))
    config = AugmentationConfig(mirror=1.0, turn=0.5, zoom=(0.9, 1.1))
    result = ClipAugmentation.draw(config, 2, np.random.default_rng(0))(replace(original, frame=frame), NAMES)
    assert result.frame.cameras[RIGHT] is None
    assert camera_of(result, LEFT).name == NAMES[LEFT]
