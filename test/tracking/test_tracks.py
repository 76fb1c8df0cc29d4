from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tracked_boxes import boxes_at

from bevformer_ros import geometry
from bevformer_ros.tracking.tracks import Tracks3D


def tracks_at(*positions):
    boxes = boxes_at(0, *positions)
    count = len(boxes)
    return Tracks3D(
        boxes,
        ids=np.arange(count) + 1,
        covariances=np.tile(np.diag([4.0, 1.0, 9.0, 2.0]), (count, 1, 1)),
        z_variances=np.full(count, 0.1),
        yaw_variances=np.full(count, 0.2),
        model_velocities=np.tile([1.0, 0.0], (count, 1)),
        coasted_s=np.zeros(count),
    )


def test_empty():
    tracks = Tracks3D.empty(5)
    assert (len(tracks), tracks.stamp_ns) == (0, 5)
    assert len(tracks.transformed(np.eye(4)).select(np.zeros(0, np.bool_))) == 0


def test_a_quarter_turn_exchanges_the_axes():
    tracks = tracks_at((10.0, 0.0)).transformed(geometry.transform_from_rpy((0, 0, 0), (0, 0, np.pi / 2)))
    np.testing.assert_allclose(tracks.boxes.centers[0, :2], [0, 10], atol=1e-9)
    np.testing.assert_allclose(tracks.model_velocities, [[0.0, 1.0]], atol=1e-9)
    np.testing.assert_allclose(tracks.covariances[0], np.diag([1.0, 4.0, 2.0, 9.0]), atol=1e-9)
    np.testing.assert_allclose(tracks.boxes.yaws, [np.pi / 2])


def test_selecting_keeps_rows_together():
    tracks = tracks_at((10.0, 0.0), (20.0, 0.0)).select(np.array([1]))
    assert tracks.ids.tolist() == [2] and tracks.boxes.centers[0, 0] == 20


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ids": np.array([1, 1])}, "ids must be positive and differ"),
        ({"ids": np.array([0, 1])}, "ids must be positive and differ"),
        ({"covariances": np.zeros((2, 2, 2))}, r"covariances has shape \(2, 2, 2\), expected \(2, 4, 4\)"),
        ({"covariances": np.full((2, 4, 4), np.nan)}, "covariances must be finite"),
        ({"coasted_s": np.zeros(3)}, r"coasted_s has shape \(3,\), expected \(2,\)"),
    ],
)
def test_what_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        replace(tracks_at((0.0, 0.0), (9.0, 0.0)), **wrong)
