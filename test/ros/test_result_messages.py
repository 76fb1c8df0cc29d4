from __future__ import annotations

import numpy as np
import pytest
from tracked_boxes import boxes_at

pytest.importorskip("vision_msgs.msg", reason="needs the ROS environment that `make test` makes")

from bevformer_ros import geometry
from bevformer_ros.error_model import Deviations, ErrorModel, RingDeviations
from bevformer_ros.ros import topics
from bevformer_ros.ros.result_messages import ResultMessages

# From the BEV frame, y forward, into a base frame, x forward.
BASE_FROM_BEV = geometry.transform_from_rpy((0.9, 0.0, 1.8), (0.0, 0.0, -np.pi / 2))
ERRORS = Deviations(20, radial_m=2.0, tangential_m=1.0, height_m=0.5, heading_rad=0.1, velocity_mps=3.0)


def covariances(error_model):
    """Of the place and of the velocity of a car 20 m ahead, in the base frame."""
    boxes = boxes_at(0, (0.0, 20.0))
    found = dict(ResultMessages("base_link").of(boxes, BASE_FROM_BEV, None, lambda _: False, error_model))
    (box,), (extra,) = found[topics.DETECTIONS].detections, found[topics.KINEMATICS].detections
    return np.reshape(box.results[0].pose.covariance, (6, 6)), np.reshape(extra.velocity.covariance, (6, 6))


def test_unknown_covariances_are_zeros():
    assert not np.any(covariances(None))


def test_covariances_are_in_the_axes_of_the_message():
    """What was radial along y in the BEV frame lies along x of the base frame."""
    place, velocity = covariances(ErrorModel((30.0,), (RingDeviations("car", 0, ERRORS),)))
    np.testing.assert_allclose(place, np.diag([4.0, 1.0, 0.25, 0.0, 0.0, 0.01]), atol=1e-12)
    np.testing.assert_allclose(velocity, np.diag([9.0, 9.0, 0.0, 0.0, 0.0, 0.0]), atol=1e-12)
