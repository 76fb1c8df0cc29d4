"""Lenses against OpenCV's formulas, and lines against the points they run through."""

import cv2
import numpy as np
import pytest

from bevformer_ros.lens import PINHOLE, Lens, project, project_lines, undistortion_maps, unproject, virtual_pinhole

INTRINSICS = np.array([[500.0, 0.0, 399.5], [0.0, 510.0, 224.5], [0.0, 0.0, 1.0]])
PLUMB_BOB = Lens("plumb_bob", (-0.35, 0.12, 0.001, -0.002, 0.0))
FISHEYE = Lens("equidistant", (0.05, -0.01, 0.002, -0.0005))
LENSES = {
    "four": Lens("plumb_bob", (-0.3, 0.1, 0.001, -0.002)),
    "five": PLUMB_BOB,
    "rational": Lens("rational_polynomial", (8.0, 5.5, 1e-4, 2e-4, 0.3, 8.4, 8.5, 1.6)),
    "thin prism": Lens("rational_polynomial", (0.1, 0.02, 0.001, 0.002, 0.0, 0.3, 0.1, 0.0, 0.01, -0.02, 0.03, 0.01)),
    "tilted": Lens("rational_polynomial", (0.1, 0.0, 0.0, 0.0, 0.0, 0.3, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.04, -0.03)),
}


def points_ahead(count=200, widest=0.6):
    random = np.random.default_rng(0)
    depths = random.uniform(0.5, 60.0, (count, 1))
    return np.concatenate([random.uniform(-widest, widest, (count, 2)) * depths, depths], axis=1)


def test_no_points_and_no_lines():
    for lens in (PINHOLE, PLUMB_BOB, FISHEYE):
        assert project(lens, INTRINSICS, np.zeros((0, 3))).shape == (0, 2)
        assert project_lines(lens, INTRINSICS, np.zeros((0, 2, 3))).shape[::2] == (0, 2)


@pytest.mark.parametrize("lens", LENSES.values(), ids=LENSES)
def test_projection_is_opencv_s(lens):
    points = points_ahead()
    expected, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), INTRINSICS, np.array(lens.coefficients))
    np.testing.assert_allclose(project(lens, INTRINSICS, points), expected[:, 0], atol=1e-6)


def test_fisheye_is_opencv_s():
    points = points_ahead(widest=3.0)
    expected, _ = cv2.fisheye.projectPoints(
        points[:, None], np.zeros(3), np.zeros(3), INTRINSICS, np.array(FISHEYE.coefficients)
    )
    np.testing.assert_allclose(project(FISHEYE, INTRINSICS, points), expected[:, 0], atol=1e-6)


def test_the_axis_meets_the_principal_point():
    for lens in (PINHOLE, PLUMB_BOB, FISHEYE):
        np.testing.assert_allclose(project(lens, INTRINSICS, [0.0, 0.0, 3.0]), INTRINSICS[:2, 2])


def test_a_fisheye_sees_beside_and_behind_itself():
    """An ideal one puts a ray at an angle of a on a radius of f * a; a hundred degrees are 1.745."""
    ideal, angle = Lens("equidistant", (0.0,) * 4), np.radians(100.0)
    pixel = project(ideal, INTRINSICS, [np.sin(angle), 0.0, np.cos(angle)])
    np.testing.assert_allclose(pixel, [399.5 + 500.0 * angle, 224.5])
    assert np.isnan(project(PINHOLE, INTRINSICS, [np.sin(angle), 0.0, np.cos(angle)])).all()


@pytest.mark.parametrize("lens", [PINHOLE, FISHEYE, *LENSES.values()], ids=["none", "fisheye", *LENSES])
def test_rays_of_pixels_arrive_at_the_pixels(lens):
    pixels = np.stack(np.meshgrid(np.linspace(100, 700, 17), np.linspace(50, 400, 11)), axis=-1)
    rays = unproject(lens, INTRINSICS, pixels)
    np.testing.assert_allclose(np.linalg.norm(rays, axis=-1), 1.0)
    np.testing.assert_allclose(project(lens, INTRINSICS, rays), pixels, atol=0.01)


def test_no_ray_reaches_a_pixel_beyond_the_lens():
    narrow = Lens("equidistant", (-1 / 3, 0.0, 0.0, 0.0))  # whose radii end at 2 / 3 of a focal length
    rays = unproject(narrow, INTRINSICS, [[399.5 + 330.0, 224.5], [399.5 + 336.0, 224.5]])
    assert np.isfinite(rays[0]).all() and np.isnan(rays[1]).all()


@pytest.mark.parametrize(
    ("lens", "degrees"),
    [
        (PINHOLE, 89.9),
        # r - 0.35 r³ + 0.12 r⁵: its derivative 1 - 1.05 r² + 0.6 r⁴ has no zero.
        (PLUMB_BOB, 89.9),
        # r - r³ / 3 rises up to r = 1, which are 45 degrees.
        (Lens("plumb_bob", (-1 / 3, 0.0, 0.0, 0.0)), 45.0),
        # a - a³ / 3 rises up to an angle of 1 radian.
        (Lens("equidistant", (-1 / 3, 0.0, 0.0, 0.0)), np.degrees(1.0)),
    ],
)
def test_nothing_is_seen_beyond_the_widest_angle(lens, degrees):
    np.testing.assert_allclose(np.degrees(lens.widest_angle), degrees, atol=0.11)
    inside, outside = np.radians(degrees - 0.3), np.radians(degrees + 0.3)
    assert np.isfinite(project(lens, INTRINSICS, [np.sin(inside), 0.0, np.cos(inside)])).all()
    assert np.isnan(project(lens, INTRINSICS, [np.sin(outside), 0.0, np.cos(outside)])).all()


@pytest.mark.parametrize(("model", "count"), [("plumb_bob", 3), ("equidistant", 0), ("equidistant", 5)])
def test_a_wrong_number_of_coefficients_is_refused(model, count):
    with pytest.raises(ValueError, match=f"{count} coefficients of a lens {model}, expected 4|{count} coefficients"):
        Lens(model, (0.1,) * count)


def test_a_line_in_a_pinhole_is_cut_before_the_camera():
    lines = [[[1.0, 0.0, -2.0], [1.0, 0.0, 8.0]], [[0.0, 0.0, -1.0], [1.0, 0.0, -1.0]]]
    cut, behind = project_lines(PINHOLE, INTRINSICS, lines)
    np.testing.assert_allclose(cut, [[399.5 + 500 / 0.1, 224.5], [399.5 + 500 / 8, 224.5]])
    assert np.isnan(behind).all()


@pytest.mark.parametrize("lens", [PLUMB_BOB, FISHEYE], ids=["plumb_bob", "equidistant"])
def test_a_bent_line_runs_through_the_points_of_the_line(lens):
    """Every point of a long edge past the camera lies within a pixel of the path."""
    line = np.array([[-1.3, 0.8, 1.5], [9.0, 4.0, 20.0]])
    (path,) = project_lines(lens, INTRINSICS, line[None])
    pixels = project(lens, INTRINSICS, line[0] + np.linspace(0, 1, 500)[:, None] * (line[1] - line[0]))
    starts, steps = path[:-1], np.diff(path, axis=0)
    share = np.clip(((pixels[:, None] - starts) * steps).sum(-1) / np.square(steps).sum(-1), 0.0, 1.0)
    distances = np.linalg.norm(starts + share[..., None] * steps - pixels[:, None], axis=-1).min(axis=1)
    assert distances.max() < 1.0
    chord = np.linalg.norm(path[-1] - path[0])
    assert np.linalg.norm(np.diff(path, axis=0), axis=1).sum() > 1.001 * chord


def test_what_a_lens_does_not_see_of_a_line_is_left_out():
    (path,) = project_lines(
        Lens("plumb_bob", (-1 / 3, 0.0, 0.0, 0.0)), INTRINSICS, [[[-5.0, 0.0, 1.0], [0.0, 0.0, 1.0]]]
    )
    finite = np.isfinite(path).all(axis=1)
    assert not finite[0] and finite[-1]
    assert (np.diff(finite.astype(int)) >= 0).all()


@pytest.mark.parametrize(("width", "angle"), [(800, 90.0), (801, 60.0)])
def test_a_virtual_pinhole_spans_the_angle(width, angle):
    pinhole = virtual_pinhole(INTRINSICS, width, angle)
    assert np.degrees(2 * np.arctan(width / 2 / pinhole[0, 0])) == pytest.approx(angle)
    np.testing.assert_allclose(pinhole[1, 1] / pinhole[0, 0], 510 / 500)
    np.testing.assert_array_equal(pinhole[:, 2], INTRINSICS[:, 2])
    np.testing.assert_array_equal(virtual_pinhole(INTRINSICS, width, None), INTRINSICS)


@pytest.mark.parametrize("lens", [PLUMB_BOB, LENSES["rational"]], ids=["plumb_bob", "rational"])
def test_undistortion_looks_where_opencv_looks(lens):
    size = (800, 450)
    expected = cv2.initUndistortRectifyMap(
        INTRINSICS, np.array(lens.coefficients), np.eye(3), INTRINSICS, size, cv2.CV_32FC1
    )
    np.testing.assert_allclose(undistortion_maps(lens, INTRINSICS, INTRINSICS, size), expected, atol=1e-3)


def test_fisheye_undistortion_looks_where_opencv_looks():
    size, pinhole = (800, 450), virtual_pinhole(INTRINSICS, 800, 100.0)
    expected = cv2.fisheye.initUndistortRectifyMap(
        INTRINSICS, np.array(FISHEYE.coefficients), np.eye(3), pinhole, size, cv2.CV_32FC1
    )
    np.testing.assert_allclose(undistortion_maps(FISHEYE, INTRINSICS, pinhole, size), expected, atol=1e-3)


def test_undistortion_looks_nowhere_beyond_the_lens():
    narrow = Lens("equidistant", (-1 / 3, 0.0, 0.0, 0.0))  # up to 57 degrees
    columns, rows = undistortion_maps(narrow, INTRINSICS, virtual_pinhole(INTRINSICS, 800, 150.0), (800, 450))
    assert columns[224, 400] > 0
    assert (columns[224, [0, -1]] < -1).all() and (rows[224, [0, -1]] < -1).all()
