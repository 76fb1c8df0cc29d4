import numpy as np
import pytest

from bevformer_ros import geometry


def test_no_points_and_no_boxes():
    assert geometry.apply(np.eye(4), np.zeros((0, 3))).shape == (0, 3)
    assert geometry.box_corners(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0)).shape == (0, 8, 3)


def test_invert_undoes_the_transform():
    base_from_bev = geometry.transform_from_rpy([1.0, -2.0, 0.5], [0.1, -0.2, 2.0])
    np.testing.assert_allclose(geometry.invert(base_from_bev) @ base_from_bev, np.eye(4), atol=1e-15)


def test_roll_pitch_yaw_are_fixed_axis():
    # Yaw of 90 degrees is applied last: x after the roll about x stays x, then turns to y.
    matrix = geometry.transform_from_rpy([0, 0, 0], [np.pi / 2, 0, np.pi / 2])
    np.testing.assert_allclose(geometry.apply(matrix, [[1, 0, 0], [0, 1, 0]]), [[0, 1, 0], [0, 0, 1]], atol=1e-15)


def test_quaternion_round_trip():
    matrix = geometry.transform_from_rpy([3, 2, 1], [0.3, 0.2, -3.0])
    np.testing.assert_allclose(geometry.transform(matrix[:3, 3], geometry.quaternion_xyzw(matrix)), matrix, atol=1e-12)


def test_projection_of_a_point_worked_by_hand():
    intrinsics = [[100.0, 0, 50], [0, 200.0, 40], [0, 0, 1]]
    # u = 100 * 1/4 + 50 = 75, v = 200 * 2/4 + 40 = 140
    pixels, depth = geometry.project(intrinsics, [[1.0, 2.0, 4.0], [1.0, 2.0, -4.0]])
    np.testing.assert_allclose(pixels[0], [75, 140])
    assert np.isnan(pixels[1]).all()
    np.testing.assert_allclose(depth, [4, -4])


def test_front_face_of_a_box_turned_left_by_90_degrees_lies_at_plus_y():
    corners = geometry.box_corners([[10, 20, 1]], [[4, 2, 1.5]], [np.pi / 2])[0]
    np.testing.assert_allclose(corners[4:, 1], 22)
    np.testing.assert_allclose(corners[:4, 1], 18)
    np.testing.assert_allclose(np.ptp(corners, axis=0), [2, 4, 1.5])


def test_edges_are_the_twelve_sides_of_a_box():
    corners = geometry.box_corners([[0, 0, 0]], [[5, 3, 2]], [0.0])[0]
    lengths = sorted(np.linalg.norm(corners[a] - corners[b]) for a, b in geometry.BOX_EDGES)
    np.testing.assert_allclose(lengths, [2] * 4 + [3] * 4 + [5] * 4)


@pytest.mark.parametrize(
    ("angle", "wrapped"), [(0.0, 0.0), (np.pi, -np.pi), (-np.pi, -np.pi), (3.5 * np.pi, -0.5 * np.pi)]
)
def test_wrap_angle(angle, wrapped):
    assert geometry.wrap_angle(angle) == pytest.approx(wrapped)


def test_yaw_of_a_transform():
    assert geometry.yaw_of(geometry.transform_from_rpy([1, 2, 3], [0, 0, 0.7])) == pytest.approx(0.7)


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.25])
def test_scaled_intrinsics_keep_the_edges_of_the_image(scale):
    """The outer edge of the first pixel, half a pixel before its centre, stays where it is."""
    intrinsics = np.array([[100.0, 0.0, 31.5], [0.0, 90.0, 23.5], [0.0, 0.0, 1.0]])
    edge = np.linalg.inv(intrinsics) @ (-0.5, -0.5, 1.0)
    pixel, _ = geometry.project(geometry.scaled_intrinsics(intrinsics, scale), edge)
    np.testing.assert_allclose(pixel, -0.5)
