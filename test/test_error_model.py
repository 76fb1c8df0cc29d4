from __future__ import annotations

import numpy as np
import pytest

from bevformer_ros.config import from_dict
from bevformer_ros.error_model import Deviations, ErrorModel, RingDeviations
from bevformer_ros.taxonomy import CLASS_ID, NO_ATTRIBUTE
from bevformer_ros.types import Detections3D

NEAR = Deviations(100, radial_m=2.0, tangential_m=1.0, height_m=0.5, heading_rad=0.1, velocity_mps=3.0)
MODEL = ErrorModel((10.0, 30.0), (RingDeviations("car", 0, NEAR),))


def boxes_at(name, *places):
    count = len(places)
    return Detections3D(
        stamp_ns=0,
        centers=np.array([(*place, 0.0) for place in places]).reshape(count, 3),
        sizes=np.ones((count, 3)),
        yaws=np.zeros(count),
        velocities=np.zeros((count, 2)),
        scores=np.ones(count),
        labels=np.full(count, CLASS_ID[name]),
        attributes=np.full(count, NO_ATTRIBUTE),
        from_proposal=np.zeros(count, np.bool_),
    )


def test_no_boxes():
    covariances = MODEL.covariances(Detections3D.empty(0))
    assert covariances.poses.shape == covariances.velocities.shape == (0, 6, 6)
    assert covariances.turned(np.eye(3)).poses.shape == (0, 6, 6)


def test_errors_along_the_line_of_sight():
    """Ahead along x the radial error of 2 m lies along x, to the left along y, between them in both."""
    covariances = MODEL.covariances(boxes_at("car", (5.0, 0.0), (0.0, 5.0), (3.0, 3.0)))
    ahead, left, between = covariances.poses
    np.testing.assert_allclose(ahead, np.diag([4.0, 1.0, 0.25, 0.0, 0.0, 0.01]), atol=1e-12)
    np.testing.assert_allclose(left, np.diag([1.0, 4.0, 0.25, 0.0, 0.0, 0.01]), atol=1e-12)
    np.testing.assert_allclose(between[:2, :2], [[2.5, 1.5], [1.5, 2.5]])
    np.testing.assert_allclose(covariances.velocities[0], np.diag([9.0, 9.0, 0.0, 0.0, 0.0, 0.0]))


@pytest.mark.parametrize(("name", "place"), [("car", (20.0, 0.0)), ("car", (99.0, 0.0)), ("bus", (5.0, 0.0))])
def test_zeros_where_nothing_is_known(name, place):
    covariances = MODEL.covariances(boxes_at(name, place))
    assert not covariances.poses.any()
    assert not covariances.velocities.any()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"rings": []}, "rising radii"),
        ({"rings": [10.0, 10.0]}, "rising radii"),
        ({"entries": [{"class_name": "tram", "ring": 0}]}, "class_name is 'tram', expected one of barrier"),
        ({"entries": [{"class_name": "car", "ring": 2}]}, "of 2 rings"),
        ({"entries": [{"class_name": "car", "ring": 0}, {"class_name": "car", "ring": 0}]}, "once"),
        ({"deviations": {"height_m": -0.1}}, "not negative"),
        ({"deviations": {"radial_m": float("nan")}}, "finite"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, complaint):
    deviations = {**vars(NEAR), **changes.get("deviations", {})}
    entries = changes.get("entries", [{"class_name": "car", "ring": 0}])
    data = {
        "rings": changes.get("rings", [10.0, 30.0]),
        "entries": [{**entry, "deviations": deviations} for entry in entries],
    }
    with pytest.raises(ValueError, match=complaint):
        from_dict(ErrorModel, data)
