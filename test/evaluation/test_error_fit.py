from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("nuscenes", reason="needs nuscenes-devkit, which `make env` installs")

from bevformer_ros.evaluation.error_fit import MINIMUM_COUNT, fit_error_model
from bevformer_ros.evaluation.protocol import EvaluationSample
from bevformer_ros.taxonomy import CLASS_ID, NO_ATTRIBUTE
from bevformer_ros.types import Detections3D


def sample_of(count, distance, velocity_known=True):
    """Cars on the y axis, each found 0.6 m too far, 0.2 m beside, 0.1 m too low, turned by 0.3 rad, and too fast by
    1.4 m/s along each axis."""
    centers = np.column_stack([np.zeros(count), distance + np.zeros(count), np.zeros(count)])
    truth = Detections3D(
        0,
        centers,
        np.ones((count, 3)),
        np.zeros(count),
        np.zeros((count, 2)),
        np.ones(count),
        np.full(count, CLASS_ID["car"]),
        np.full(count, NO_ATTRIBUTE),
        np.zeros(count, np.bool_),
    )
    found = replace(
        truth, centers=centers + np.array([0.2, 0.6, -0.1]), yaws=truth.yaws + 0.3, velocities=truth.velocities + 1.4
    )
    return EvaluationSample(str(distance), found, truth, np.full(count, velocity_known))


def test_too_few_hits():
    with pytest.raises(ValueError, match="no class has 20 hits"):
        fit_error_model([])
    with pytest.raises(ValueError, match="no class has 20 hits"):
        fit_error_model([sample_of(1, 5.0)] * (MINIMUM_COUNT - 1))


def test_errors_by_ring():
    (entry,) = fit_error_model([sample_of(1, 25.0)] * MINIMUM_COUNT + [sample_of(1, 5.0)]).entries
    assert (entry.class_name, entry.ring) == ("car", 2)
    found = entry.deviations
    assert found.count == MINIMUM_COUNT
    assert found.radial_m == pytest.approx(0.6, abs=0.01)  # the line of sight is that of the box, not quite the y axis
    assert found.tangential_m == pytest.approx(0.2, abs=0.01)
    assert (found.height_m, found.heading_rad, found.velocity_mps) == pytest.approx((0.1, 0.3, 1.4))


def test_velocities_that_are_not_known():
    (entry,) = fit_error_model([sample_of(1, 5.0, velocity_known=False)] * MINIMUM_COUNT).entries
    assert entry.deviations.velocity_mps == 0.0
