from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bevformer_ros.tracking.kalman import measurement_noise, predict, update, walk


def test_no_tracks():
    states, covariances = predict(np.zeros((0, 4)), np.zeros((0, 4, 4)), np.zeros(0), 0.1)
    assert states.shape == (0, 4) and covariances.shape == (0, 4, 4)
    states, covariances = update(states, covariances, np.zeros((0, 4)), np.zeros((0, 4, 4)))
    assert states.shape == (0, 4) and covariances.shape == (0, 4, 4)
    assert measurement_noise(np.zeros((0, 2)), np.zeros(2), np.zeros(0), np.zeros(0), np.zeros(0)).shape == (0, 4, 4)


def test_prediction_by_hand():
    """2 s at 3 m/s: variances 1 m² and 4 m²/s² grow by 4 * 2² for the speed, and by 3 * 2³/3 and 3 * 2 of noise."""
    states, covariances = predict(
        np.array([[1.0, 5.0, 3.0, 0.0]]), np.diag([1.0, 1.0, 4.0, 4.0])[None], np.array([3.0]), 2.0
    )
    np.testing.assert_allclose(states, [[7.0, 5.0, 3.0, 0.0]])
    np.testing.assert_allclose(np.diag(covariances[0]), [1 + 16 + 8, 1 + 16 + 8, 4 + 6, 4 + 6])
    assert covariances[0, 0, 2] == pytest.approx(4 * 2 + 3 * 2**2 / 2)
    assert covariances[0, 0, 1] == 0


@given(st.lists(st.floats(0.001, 2.0), min_size=1, max_size=6))
def test_many_short_steps_are_one_long_step(steps):
    start = np.array([[1.0, 2.0, 3.0, -4.0]]), np.diag([1.0, 2.0, 3.0, 4.0])[None]
    stepped = start
    for elapsed_s in steps:
        stepped = predict(*stepped, np.array([2.0]), elapsed_s)
    at_once = predict(*start, np.array([2.0]), sum(steps))
    for one, other in zip(stepped, at_once, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


def test_equal_trust_meets_halfway():
    states, covariances = update(np.zeros((1, 4)), np.eye(4)[None], np.full((1, 4), 2.0), np.eye(4)[None])
    np.testing.assert_allclose(states, [[1.0, 1.0, 1.0, 1.0]])
    np.testing.assert_allclose(covariances, np.eye(4)[None] / 2)


def test_walks_meet_by_their_variances():
    values, variances = walk(np.array([[0.0, 1.0]]), np.array([[3.0, 1.0]]), np.array([[4.0, 0.0]]), np.ones((1, 2)))
    np.testing.assert_allclose(values, [[3.0, 1.0]])
    np.testing.assert_allclose(variances, [[0.75, 0.5]])


def test_depth_is_less_certain_than_direction():
    """20 m ahead of a camera at (1, 0): 0.5 m across, 0.5 + 0.1 * 20 = 2.5 m along; then the same to its left."""
    arguments = np.array([0.5]), np.array([0.1]), np.array([3.0])
    ahead = measurement_noise(np.array([[21.0, 0.0]]), np.array([1.0, 0.0]), *arguments)
    np.testing.assert_allclose(ahead[0], np.diag([2.5**2, 0.5**2, 9.0, 9.0]))
    left = measurement_noise(np.array([[1.0, 20.0]]), np.array([1.0, 0.0]), *arguments)
    np.testing.assert_allclose(left[0], np.diag([0.5**2, 2.5**2, 9.0, 9.0]))


def test_a_box_at_the_camera_has_no_direction():
    noise = measurement_noise(np.zeros((1, 2)), np.zeros(2), np.array([0.5]), np.array([0.1]), np.array([1.0]))
    np.testing.assert_allclose(noise[0], np.diag([0.25, 0.25, 1.0, 1.0]))
