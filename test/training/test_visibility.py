"""A camera at the origin that looks along y of the BEV frame; 100 x 50 pixels, 90 degrees wide."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bevformer_ros.datasets.keyframe import keyframe_surround_frame, keyframe_truth, load_keyframe
from bevformer_ros.training.visibility import shown_by
from bevformer_ros.types import SECOND_NS, CameraImage, Detections3D

CAMERA = CameraImage(
    "CAM_FRONT",
    SECOND_NS,
    np.zeros((50, 100, 3), np.uint8),
    np.array([[50.0, 0, 49.5], [0, 50, 24.5], [0, 0, 1]]),
    np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]),
)


def box(center, size=(2.0, 2.0, 2.0), yaw=0.0, velocity=(0.0, 0.0), stamp_ns=SECOND_NS) -> Detections3D:
    empty = Detections3D.empty(stamp_ns)
    return replace(
        empty,
        centers=np.array([center], np.float64),
        sizes=np.array([size]),
        yaws=np.array([yaw]),
        velocities=np.array([velocity]),
        scores=np.ones(1),
        labels=np.zeros(1, np.int64),
        attributes=np.full(1, -1),
        from_proposal=np.zeros(1, np.bool_),
    )


def test_no_objects():
    assert shown_by(CAMERA, Detections3D.empty(SECOND_NS)).shape == (0,)


@pytest.mark.parametrize(
    ("boxes", "shown"),
    [
        (box((0, 10, 0)), True),
        (box((0, -10, 0)), False),
        # The nearest side at y = 9: the image ends at x = 9, so at x = 10 the box (9..11) reaches it from y = 9 on.
        (box((9.9, 10, 0)), True),
        (box((13, 10, 0)), False),
        # A thin wall, the ends of which are far outside or behind the camera.
        (box((0, 10, 0), size=(200.0, 0.2, 2.0)), True),
        (box((3, 0, 0), size=(0.2, 40.0, 2.0)), True),
        # A bridge above: in front, but over the upper border, which lies at z = 5 for y = 10.
        (box((0, 10, 6.9)), False),
        (box((0, 10, 6.1)), True),
        # The whole view lies inside a box, no corner in it.
        (box((0, 10, 0), size=(100.0, 4.0, 100.0)), True),
        (box((0, 0, 0), size=(100.0, 100.0, 100.0)), True),
        # A wall beside the camera that passes by it, parallel to the view's border.
        (box((-0.5, -3, 0), size=(0.2, 4.0, 1.0)), False),
    ],
)
def test_single_boxes(boxes, shown):
    assert shown_by(CAMERA, boxes).tolist() == [shown]


def test_a_rectangle_around_the_projection_is_not_enough():
    """A beam seen at a slant passes by a corner of the image, 53 pixels from the middle along the diagonal."""
    slanted = replace(CAMERA, camera_from_bev=_rolled(np.pi / 4) @ CAMERA.camera_from_bev)
    across, beyond = box((0, 10, 8), size=(20.0, 0.2, 0.2)), box((0, 10, 12), size=(20.0, 0.2, 0.2))
    assert shown_by(slanted, across).tolist() == [True]
    assert shown_by(slanted, beyond).tolist() == [False]


def _rolled(angle):
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin, 0, 0], [sin, cos, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def test_objects_move_until_the_camera_exposes():
    late = box((-13, 10, 0), velocity=(6.0, 0.0), stamp_ns=SECOND_NS // 2)
    assert shown_by(CAMERA, late).tolist() == [True]
    assert shown_by(CAMERA, replace(late, stamp_ns=SECOND_NS)).tolist() == [False]


def test_every_object_around_the_recorded_car_is_seen_by_one_camera_or_by_two_neighbours(shared_directory):
    folder = shared_directory / "data" / "nuscenes_frame"
    frame, truth = keyframe_surround_frame(folder), keyframe_truth(load_keyframe(folder))
    visible = np.stack([shown_by(camera, truth) for camera in frame.cameras], axis=1)
    assert set(visible.sum(axis=1)) == {1, 2}
    names = [camera.name for camera in frame.cameras]
    ahead = np.abs(np.arctan2(truth.centers[:, 0], truth.centers[:, 1])) < np.deg2rad(30)
    assert ahead.any()
    assert visible[ahead, names.index("CAM_FRONT")].all()
    assert not visible[ahead, names.index("CAM_BACK")].any()
