from dataclasses import replace

import numpy as np
import pytest

from bevformer_ros import geometry
from bevformer_ros.taxonomy import CLASS_ID, NO_ATTRIBUTE
from bevformer_ros.types import CameraImage, Detections3D, SurroundFrame


def make_camera(**changes):
    arguments = {
        "name": "CAM_FRONT",
        "stamp_ns": 1,
        "image": np.zeros((4, 6, 3), np.uint8),
        "intrinsics": np.array([[5.0, 0, 3], [0, 5.0, 2], [0, 0, 1]]),
        "camera_from_bev": np.eye(4),
    }
    return CameraImage(**(arguments | changes))


def test_a_part_of_an_image_sees_what_it_saw():
    whole = make_camera(image=np.arange(72, dtype=np.uint8).reshape(4, 6, 3))
    assert whole.cropped(None) is whole
    part = whole.cropped((1, 2, 5, 4))
    assert np.array_equal(part.image, whole.image[2:4, 1:5])
    point = np.array([[0.2, 0.1, 2.0]])
    pixel = [geometry.project(camera.intrinsics, point)[0] for camera in (whole, part)]
    np.testing.assert_allclose(pixel[0] - pixel[1], [[1.0, 2.0]])


@pytest.mark.parametrize(
    ("points", "seen"),
    [
        (np.zeros((0, 3)), []),
        ([[0.0, 0, 1]], [True]),
        ([[0.0, 0, -1]], [False]),
        # At depth 1 the image of 6 x 4 pixels reaches from u = -0.5, x = -0.7, to u = 5.5, x = 0.5.
        ([[-0.69, 0, 1], [-0.71, 0, 1], [0.49, 0, 1], [0.51, 0, 1]], [True, False, True, False]),
    ],
)
def test_what_a_camera_sees(points, seen):
    assert make_camera().sees(np.asarray(points)).tolist() == seen


def make_detections(count, **changes):
    arguments = {
        "stamp_ns": 7,
        "centers": np.arange(3.0 * count).reshape(count, 3),
        "sizes": np.ones((count, 3)),
        "yaws": np.linspace(0.0, 1.0, count),
        "velocities": np.tile([1.0, 0.0], (count, 1)),
        "scores": np.linspace(0.9, 0.1, count),
        "labels": np.full(count, CLASS_ID["car"]),
        "attributes": np.full(count, NO_ATTRIBUTE),
        "from_proposal": np.zeros(count, np.bool_),
    }
    return Detections3D(**(arguments | changes))


def test_empty_detections_pass_through_everything():
    empty = Detections3D.empty(5)
    assert len(empty) == 0
    assert len(empty.transformed(np.eye(4))) == 0
    assert len(empty.select(np.zeros(0, np.bool_))) == 0
    assert empty.corners().shape == (0, 8, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": np.zeros((4, 6), np.uint8)}, r"CAM_FRONT: image has shape \(4, 6\), expected \(any, any, 3\)"),
        ({"image": np.zeros((4, 6, 3))}, "float64, expected uint8"),
        ({"intrinsics": np.zeros((3, 3))}, "is the camera calibrated"),
        ({"intrinsics": np.eye(4)}, "intrinsics has shape"),
        ({"camera_from_bev": np.diag([2.0, 1, 1, 1])}, "not a rigid transform"),
    ],
)
def test_a_bad_camera_image_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        make_camera(**changes)


def test_a_frame_needs_a_camera():
    with pytest.raises(ValueError, match="at least one camera"):
        SurroundFrame(0, (None, None), np.eye(4))
    assert SurroundFrame(0, (None, make_camera()), np.eye(4)).cameras[0] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"yaws": np.zeros(3)}, r"yaws has shape \(3,\), expected \(2\)"),
        ({"centers": np.full((2, 3), np.nan)}, "centers holds values that are not finite"),
        ({"sizes": np.zeros((2, 3))}, "sizes must be positive"),
        ({"scores": np.array([0.5, 1.5])}, "scores must lie in 0..1"),
        ({"labels": np.array([0, 10])}, "labels must lie in 0..9"),
        ({"attributes": np.array([0, 8])}, "attributes must lie in -1..7"),
    ],
)
def test_bad_detections_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        make_detections(2, **changes)


def test_selecting_keeps_all_fields_in_step():
    chosen = make_detections(4).select(np.array([2, 0]))
    np.testing.assert_allclose(chosen.centers[:, 0], [6, 0])
    np.testing.assert_allclose(chosen.yaws, [2 / 3, 0])


def test_transforming_turns_centres_headings_and_velocities_together():
    base_from_bev = geometry.transform_from_rpy([1.0, 0.0, 2.0], [0, 0, -np.pi / 2])
    boxes = make_detections(
        1, centers=np.array([[0.0, 10.0, -1.0]]), yaws=np.array([np.pi / 2]), velocities=np.array([[0.0, 3.0]])
    )
    boxes = replace(boxes, proposals=make_detections(1))
    moved = boxes.transformed(base_from_bev)
    np.testing.assert_allclose(moved.centers, [[11, 0, 1]], atol=1e-12)
    np.testing.assert_allclose(moved.yaws, [0], atol=1e-12)
    np.testing.assert_allclose(moved.velocities, [[3, 0]], atol=1e-12)
    np.testing.assert_allclose(moved.proposals.centers, [[2, 0, 4]], atol=1e-12)
    np.testing.assert_allclose(geometry.apply(base_from_bev, boxes.corners()), moved.corners(), atol=1e-12)
