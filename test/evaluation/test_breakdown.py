"""Scores by distance and their confidence intervals, against the devkit and by hand."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("nuscenes", reason="needs nuscenes-devkit, which `make env` installs")

from bevformer_ros.evaluation.breakdown import Interval, by_distance, difference_interval, mean_ap_interval
from bevformer_ros.evaluation.protocol import EvaluationSample, score
from bevformer_ros.taxonomy import CLASS_ID, CLASS_NAMES, NO_ATTRIBUTE
from bevformer_ros.types import Detections3D


def boxes(centers, labels, scores):
    count = len(labels)
    return Detections3D(
        0,
        centers=np.array(centers, np.float64).reshape(count, 3),
        sizes=np.tile([4.0, 2.0, 1.5], (count, 1)),
        yaws=np.zeros(count),
        velocities=np.zeros((count, 2)),
        scores=np.array(scores, np.float64),
        labels=np.array(labels, np.int64),
        attributes=np.full(count, NO_ATTRIBUTE),
        from_proposal=np.zeros(count, np.bool_),
    )


def random_scene(seed, noise=1.0, samples=5):
    """Objects anywhere, most of them found somewhat off, among boxes of nothing."""
    random = np.random.default_rng(seed)
    made = []
    for index in range(samples):
        labels = random.integers(0, len(CLASS_NAMES), 12)
        centers = np.column_stack([random.uniform(-45, 45, (12, 2)), np.zeros(12)])
        found = np.flatnonzero(random.random(12) < 0.8)
        off = random.normal(0, noise, (len(found), 3))
        false = np.column_stack([random.uniform(-45, 45, (6, 2)), np.zeros(6)])
        detections = boxes(
            np.concatenate([centers[found] + off, false]),
            np.concatenate([labels[found], random.integers(0, len(CLASS_NAMES), 6)]),
            random.random(len(found) + 6),
        )
        truth = boxes(centers, labels, np.ones(12))
        made.append(EvaluationSample(f"{seed}-{index}", detections, truth, np.ones(12, np.bool_)))
    return made


def test_the_value_in_the_interval_is_the_devkits():
    scenes = {str(seed): random_scene(seed) for seed in range(4)}
    interval = mean_ap_interval(scenes)
    whole = score([sample for samples in scenes.values() for sample in samples])
    assert interval.value == pytest.approx(whole.mean_ap, abs=1e-12)
    assert interval.low < interval.value < interval.high
    assert mean_ap_interval(scenes) == interval, "the draws are the same every time"


def test_scenes_that_do_not_differ_leave_no_doubt():
    scene = random_scene(1)
    interval = mean_ap_interval({"one": scene, "two": scene})
    # Equal up to what a score that occurs twice does to the steps of the curve.
    assert interval.high - interval.low < 0.01


def test_a_worse_run_is_worse_by_more_than_chance():
    good, poor = ({str(seed): random_scene(seed, noise) for seed in range(3)} for noise in (0.3, 2.5))
    assert difference_interval(good, good) == Interval(0.0, 0.0, 0.0)
    worse = difference_interval(good, poor)
    assert worse.high < 0


def test_one_scene_says_nothing_about_scenes():
    with pytest.raises(ValueError, match="1 scene, expected at least 2"):
        mean_ap_interval({"one": random_scene(0)})
    with pytest.raises(ValueError, match="1 and 2 scenes"):
        difference_interval({"one": []}, {"one": [], "two": []})


def test_rings_hold_what_lies_in_them():
    car = CLASS_ID["car"]
    near, far = (5.0, 0, 0), (35.0, 0, 0)
    sample = EvaluationSample(
        "a", boxes([near], [car], [0.9]), boxes([near, far], [car, car], [1, 1]), np.ones(2, np.bool_)
    )
    rings = by_distance([sample])
    assert list(rings) == ["0 to 10 m", "30 to 40 m"]
    assert [ring.classes["car"].truths for ring in rings.values()] == [1, 1]
    assert [ring.classes["car"].ap for ring in rings.values()] == pytest.approx([1.0, 0.0])
