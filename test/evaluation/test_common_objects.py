"""Errors on the objects that all detectors find, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("nuscenes", reason="needs nuscenes-devkit, which `make env` installs")

from bevformer_ros.evaluation.common_objects import common_objects
from bevformer_ros.evaluation.protocol import EvaluationSample
from bevformer_ros.evaluation.sample_file import read_samples, write_samples
from bevformer_ros.taxonomy import CLASS_ID
from bevformer_ros.types import Detections3D

CAR, CONE = CLASS_ID["car"], CLASS_ID["traffic_cone"]


def boxes(places, labels, yaw=0.0, velocity=0.0):
    """On the x axis."""
    count = len(labels)
    return replace(
        Detections3D.empty(5),
        centers=np.column_stack([np.array(places, np.float64), np.zeros((count, 2))]),
        sizes=np.ones((count, 3)),
        yaws=np.full(count, yaw),
        velocities=np.full((count, 2), [velocity, 0.0]),
        scores=np.ones(count),
        labels=np.array(labels, np.int64),
        attributes=np.full(count, -1),
        from_proposal=np.zeros(count, np.bool_),
    )


def sample(detections, truth, token="a"):
    return EvaluationSample(token, detections, truth, np.ones(len(truth), np.bool_))


def test_without_objects_there_are_no_errors():
    empty = {"one": [sample(Detections3D.empty(5), Detections3D.empty(5))]}
    common = common_objects({"first": empty, "second": empty})
    assert len(common) == 0
    assert all(np.isnan(value) for value in common.means("first").values())


def test_only_what_all_find_counts():
    """The second detector misses the far car, on which the first errs most; a cone has neither heading nor motion."""
    truth = boxes([5, 10, 20], [CONE, CAR, CAR])
    first = sample(boxes([5, 10.5, 21.5], [CONE, CAR, CAR], yaw=0.2, velocity=2.0), truth)
    second = sample(boxes([5.5, 10], [CONE, CAR], yaw=0.1, velocity=1.0), truth)
    scenes = {name: {"x": [entry], "y": [entry]} for name, entry in (("first", first), ("second", second))}
    common = common_objects(scenes)
    assert len(common) == 4
    assert common.means("first") == pytest.approx({"ATE": 0.25, "AOE": 0.2, "AVE": 2.0})
    assert common.means("second") == pytest.approx({"ATE": 0.25, "AOE": 0.1, "AVE": 1.0})
    change = common.differences("first", "second")["AVE"]
    assert (change.value, change.low, change.high) == pytest.approx((-1.0, -1.0, -1.0)), "the scenes are alike"


def test_other_truths_are_refused():
    one, two = ({"x": [sample(boxes([], []), boxes(places, [CAR] * len(places)))]} for places in ([1], [1, 9]))
    with pytest.raises(ValueError, match="the truths of first, second differ"):
        common_objects({"first": one, "second": two})


def test_samples_survive_their_file(tmp_path):
    written = [
        sample(boxes([], []), boxes([1, 2], [CAR, CONE]), "a"),
        sample(boxes([3.5], [CAR], yaw=0.3, velocity=4.0), boxes([], []), "b"),
    ]
    write_samples(tmp_path / "boxes.npz", written)
    for before, after in zip(written, read_samples(tmp_path / "boxes.npz"), strict=True):
        assert before.token == after.token and before.velocity_known.tolist() == after.velocity_known.tolist()
        for old, new in ((before.detections, after.detections), (before.truth, after.truth)):
            assert old.stamp_ns == new.stamp_ns
            for name in ("centers", "sizes", "yaws", "velocities", "scores", "labels"):
                assert np.array_equal(getattr(old, name), getattr(new, name))
    with pytest.raises(ValueError, match="no samples to write"):
        write_samples(tmp_path / "none.npz", [])
