"""Drawing: boxes land on the pixels they should, and nothing breaks without boxes or cameras."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from bevformer_ros import geometry
from bevformer_ros.drawing import (
    BevPanel,
    Comparison,
    Look,
    class_colour,
    draw_bev,
    draw_boxes_on_camera,
    draw_ground_on_camera,
    draw_surround,
    panel_order,
    rectified,
)
from bevformer_ros.inference.device_image import DeviceImage
from bevformer_ros.lens import Lens, project
from bevformer_ros.taxonomy import CLASS_ID
from bevformer_ros.types import CameraImage, Detections3D, SurroundFrame

# x right, y forward, z up to the optical axes x right, y down, z forward
CAMERA_FROM_BEV = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])


def camera(name: str = "CAM_FRONT") -> CameraImage:
    intrinsics = np.array([[100.0, 0, 99.5], [0, 100.0, 49.5], [0, 0, 1]])
    return CameraImage(name, 0, np.zeros((100, 200, 3), np.uint8), intrinsics, CAMERA_FROM_BEV)


def boxes(*centers: tuple[float, float, float]) -> Detections3D:
    count = len(centers)
    return Detections3D(
        0,
        centers=np.array(centers, float).reshape(-1, 3),
        sizes=np.full((count, 3), 2.0),
        yaws=np.zeros(count),
        velocities=np.zeros((count, 2)),
        scores=np.ones(count),
        labels=np.full(count, CLASS_ID["car"]),
        attributes=np.full(count, -1),
        from_proposal=np.zeros(count, bool),
    )


def test_no_boxes_draw_nothing():
    image = np.zeros((100, 200, 3), np.uint8)
    draw_boxes_on_camera(image, camera(), Detections3D.empty(0))
    assert not image.any()


def test_a_box_behind_the_camera_draws_nothing():
    image = np.zeros((100, 200, 3), np.uint8)
    draw_boxes_on_camera(image, camera(), boxes((0.0, -8.0, 0.0)))
    assert not image.any()


@pytest.mark.parametrize("scale", [1, 2])
def test_a_box_ahead_is_framed(scale):
    image = np.zeros((100 * scale, 200 * scale, 3), np.uint8)
    draw_boxes_on_camera(image, camera(), boxes((0.0, 5.0, 0.0)), Look.MISSED)  # which has no score above it
    rows, columns = np.nonzero(image.any(axis=2))
    # The near side lies 4 m ahead and 1 m to each side: 25 pixels from the middle.
    middle = 99.5 + 0.5
    np.testing.assert_allclose(columns.min() / scale, middle - 25, atol=2.0)
    np.testing.assert_allclose(columns.max() / scale, middle + 25, atol=2.0)
    np.testing.assert_allclose(rows.min() / scale, 25, atol=2.0)


@pytest.mark.parametrize(
    "lens",
    [Lens("plumb_bob", (-0.3, 0.08, 0.0, 0.0, 0.0)), Lens("equidistant", (0.0,) * 4)],
    ids=lambda lens: lens.model,
)
def test_a_box_off_the_axis_is_framed_where_the_lens_shows_it(lens):
    """Every corner of the box has drawn pixels about it, which without the lens lie elsewhere."""
    entry, box = replace(camera(), lens=lens), boxes((5.0, 6.0, 0.0))
    image, straight = np.zeros((100, 200, 3), np.uint8), np.zeros((100, 200, 3), np.uint8)
    draw_boxes_on_camera(image, entry, box, Look.TRUTH)
    draw_boxes_on_camera(straight, camera(), box, Look.TRUTH)
    for corner in project(lens, entry.intrinsics, geometry.apply(CAMERA_FROM_BEV, box.corners()[0])):
        column, row = corner.round().astype(int)
        around = slice(row - 1, row + 2), slice(column - 1, column + 2)
        assert image[around].any()
    assert (image != straight).any()


def test_a_fisheye_shows_a_box_beside_it():
    image = np.zeros((100, 200, 3), np.uint8)
    wide = np.array([[50.0, 0, 99.5], [0, 50.0, 49.5], [0, 0, 1]])
    draw_boxes_on_camera(
        image, replace(camera(), intrinsics=wide, lens=Lens("equidistant", (0.0,) * 4)), boxes((9.0, -0.5, 0.0))
    )
    _, columns = np.nonzero(image.any(axis=2))
    # The right angle between its axis and the box stands for 50 * pi / 2 pixels.
    assert abs(columns.mean() - (99.5 + 50 * np.pi / 2)) < 8


def test_the_ground_ends_at_the_horizon():
    """A level camera 1.5 m above ground: the horizon runs through its principal point, the grid lies below."""
    image = np.zeros((100, 200, 3), np.uint8)
    draw_ground_on_camera(image, camera(), geometry.transform_from_rpy((0.0, 0.0, -1.5), (0.0, 0.0, np.pi / 2)))
    rows = np.flatnonzero(image.any(axis=(1, 2)))
    assert rows.min() in (48, 49)
    assert image[49:51].any(axis=(0, 2)).all()
    assert rows.max() > 60


def test_a_box_around_the_camera_is_cut_at_the_near_plane():
    image = np.zeros((100, 200, 3), np.uint8)
    draw_boxes_on_camera(image, camera(), boxes((0.0, 0.5, 0.0)))
    assert image.any()


@pytest.mark.parametrize("look", [Look.TRUTH, Look.MISSED])
def test_truth_is_white_and_tells_itself_from_detections(look):
    """Every line of the truth is grey to white; of a car's box none is."""
    truth, found = (pixels_of(one) for one in (look, Look.DETECTED))
    assert len(truth) and (truth.max(axis=1) == truth.min(axis=1)).all()
    assert len(found) and (found[:, 2] > found[:, 0]).all()


def pixels_of(look, width=100):
    image = np.zeros((width * 3 // 5, width, 3), np.uint8)
    draw_boxes_on_camera(image, camera(), boxes((0.0, 5.0, 0.0)), look)
    return image.reshape(-1, 3)[image.reshape(-1, 3).any(axis=1)].astype(int)


def test_what_is_missed_is_thicker_and_what_is_false_has_gaps():
    assert len(pixels_of(Look.MISSED, 1000)) > 1.5 * len(pixels_of(Look.TRUTH, 1000))
    assert len(pixels_of(Look.FALSE)) < 0.8 * len(pixels_of(Look.DETECTED))


def test_from_above_what_is_false_is_not_filled():
    box = boxes((20.0, 30.0, 0.0))
    column, row = BevPanel(1600).pixels(np.array([20.0, 30.0])).round().astype(int)
    right, wrong = (
        draw_bev(1600, box, Comparison(box, np.array([hit]), np.array([hit])))[row + 8, column + 2].astype(int)
        for hit in (True, False)
    )
    assert right[2] > wrong[2] + 50


def test_bev_panel_has_y_up():
    panel = BevPanel(size=100, range_m=50.0)
    np.testing.assert_allclose(
        panel.pixels(np.array([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]])), [[50, 50], [100, 50], [50, 0]]
    )


def test_bev_shows_the_class_colour_at_the_box():
    image = draw_bev(400, boxes((20.0, 30.0, 0.0)))
    column, row = BevPanel(400).pixels(np.array([20.0, 30.0])).round().astype(int)
    patch = image[row - 8 : row + 9, column - 8 : column + 9].reshape(-1, 3).astype(int)
    assert np.abs(patch - class_colour(CLASS_ID["car"])).sum(axis=1).min() < 30
    assert draw_bev(400, Detections3D.empty(0)).shape == (400, 400, 3)


def test_the_velocity_arrow_points_to_where_the_object_goes():
    """30 m/s to the front, so its tip lies far ahead of the box, and nothing lies as far behind it."""
    still = boxes((20.0, 0.0, 0.0))
    moving = replace(still, velocities=np.array([[0.0, 30.0]]))
    changed = (draw_bev(400, moving) != draw_bev(400, still)).any(axis=2)
    rows, _ = np.nonzero(changed)
    middle = BevPanel(400).pixels(np.array([20.0, 0.0]))[1]
    assert rows.min() < middle - 50
    assert rows.max() < middle + 3


@pytest.mark.parametrize("names", [("CAM_FRONT",), ("CAM_FRONT", "CAM_BACK"), ("left", "right", "up", "down")])
def test_surround_takes_any_cameras(names):
    frame = SurroundFrame(0, (*(camera(name) for name in names), None), np.eye(4))
    found = boxes((0.0, 5.0, 0.0))
    compared = Comparison(found, np.array([True]), np.array([False]))
    assert str(compared) == "1 found, 0 missed (thick white), 1 false (dashed, crossed)"
    picture = draw_surround(frame, found, "a title", comparison=compared, warning="a warning", view_width=200)
    assert picture.ndim == 3
    assert picture.dtype == np.uint8
    assert picture.shape[1] == 600 + picture.shape[0] - 64 - 34


@pytest.mark.parametrize(
    ("names", "expected"),
    [([], []), (["CAM_BACK", "CAM_FRONT"], ["CAM_FRONT", "CAM_BACK"]), (["b", "CAM_FRONT"], ["b", "CAM_FRONT"])],
)
def test_panels_are_laid_out_as_the_cameras_look(names, expected):
    assert panel_order(names) == expected


def test_rectifying_moves_a_pixel_to_where_it_projects():
    """A point that the lens shows at one pixel lies after rectifying where the pinhole has it."""
    intrinsics, lens = (
        np.array([[100.0, 0, 99.5], [0, 100.0, 49.5], [0, 0, 1]]),
        Lens("plumb_bob", (-0.2, 0.05, 0.0, 0.0, 0.0)),
    )
    point = np.array([[0.6, 0.2, 1.0]])
    seen, _ = cv2.projectPoints(point, np.zeros(3), np.zeros(3), intrinsics, np.array(lens.coefficients))
    image = np.zeros((100, 200, 3), np.uint8)
    cv2.circle(image, tuple(seen.ravel().round().astype(int).tolist()), 2, (255, 255, 255), cv2.FILLED)
    flat = rectified(CameraImage("a", 0, image, intrinsics, CAMERA_FROM_BEV, lens))
    rows, columns = np.nonzero(flat[..., 0] > 128)
    np.testing.assert_allclose([columns.mean(), rows.mean()], [99.5 + 60, 49.5 + 20], atol=1.0)


def test_an_image_on_a_gpu_is_drawn_as_one_of_the_host_is():
    picture = np.random.default_rng(0).integers(0, 255, (100, 200, 3), dtype=np.uint8)
    entry = replace(camera(), lens=Lens("plumb_bob", (-0.3, 0.08, 0.0, 0.0, 0.0)))
    expected, actual = (
        (rectified(shown), draw_surround(SurroundFrame(0, (shown,), np.eye(4)), boxes((0.0, 5.0, 0.0)), ""))
        for shown in (replace(entry, image=image) for image in (picture, DeviceImage(torch.from_numpy(picture))))
    )
    for one, other in zip(actual, expected, strict=True):
        assert np.array_equal(one, other)
