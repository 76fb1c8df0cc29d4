"""The metrics by hand, and against the devkit's whole evaluation."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("nuscenes", reason="needs nuscenes-devkit, which `make env` installs")

from miniature_nuscenes import SPLIT, VERSION, write_miniature
from nuscenes.eval.detection.evaluate import DetectionEval

from bevformer_ros.datasets.nuscenes_tables import open_dataset, sample_annotations, sample_pose
from bevformer_ros.evaluation.attributes import with_guessed_attributes
from bevformer_ros.evaluation.matching import match
from bevformer_ros.evaluation.protocol import EvaluationSample, protocol, score
from bevformer_ros.evaluation.submission_file import SampleResult, write_submission
from bevformer_ros.evaluation.table import score_table
from bevformer_ros.taxonomy import ATTRIBUTE_ID, CLASS_ID, CLASS_NAMES, CLASSES, NO_ATTRIBUTE
from bevformer_ros.types import Detections3D

CAR = CLASS_ID["car"]


def boxes(labels=(), centers=(), scores=None, velocities=None):
    count = len(labels)
    attributes = [ATTRIBUTE_ID[CLASSES[label].attributes[0]] if CLASSES[label].attributes else -1 for label in labels]
    return Detections3D(
        0,
        centers=np.array(centers, np.float64).reshape(count, 3),
        sizes=np.array([CLASSES[label].canonical_size for label in labels]).reshape(count, 3),
        yaws=np.full(count, 0.3),
        velocities=np.zeros((count, 2)) if velocities is None else np.array(velocities, np.float64),
        scores=np.full(count, 0.8) if scores is None else np.array(scores, np.float64),
        labels=np.array(labels, np.int64),
        attributes=np.array(attributes, np.int64),
        from_proposal=np.zeros(count, np.bool_),
    )


def sample(detections, truth, token="0", known=True):
    return EvaluationSample(token, detections, truth, np.full(len(truth), known))


EVERYTHING = boxes(list(range(10)), [(5.0 + 2 * label, 3.0, 1.0) for label in range(10)])


def test_nothing_to_evaluate():
    with pytest.raises(ValueError, match="nothing to evaluate"):
        score([])


@pytest.mark.parametrize(("better", "ap"), [(499, 1.0), (500, 0.0)])
def test_the_best_500_boxes_of_a_sample_count(better, ap):
    """A car that is found, behind so many barriers of better scores, and before one of a worse score."""
    barrier = CLASS_ID["barrier"]
    found = boxes(
        [*[barrier] * better, CAR, barrier], [(5.0, 5.0, 1.0)] * (better + 2), scores=[*[0.9] * better, 0.1, 0.05]
    )
    scores = score([sample(found, boxes([CAR], [(5.0, 5.0, 1.0)]))])
    assert scores.classes["car"].ap == pytest.approx(ap)


@pytest.mark.parametrize("truth", [EVERYTHING, boxes()], ids=["truth", "no truth"])
def test_no_boxes_score_nothing(truth):
    scores = score([sample(boxes(), truth)])
    assert (scores.mean_ap, scores.nds) == (0.0, 0.0)
    assert set(scores.errors.values()) == {1.0}


def test_perfect_boxes_score_one():
    scores = score([sample(EVERYTHING, EVERYTHING)])
    assert scores.mean_ap == pytest.approx(1.0, abs=1e-12)
    assert scores.nds == pytest.approx(1.0, abs=1e-9)
    assert max(scores.errors.values()) == pytest.approx(0.0, abs=1e-9)
    assert np.isnan(scores.classes["traffic_cone"].errors["mAOE"])
    assert np.isnan(scores.classes["barrier"].errors["mAVE"])


# Two cars, one in each of two samples. Recalls 0.11 to 1 count, in 90 steps; precision above 0.1, scaled to 1.
HERE, FAR = [(10.0, 0.0, 0.0)], [(60.0, 0.0, 0.0)]


@pytest.mark.parametrize(
    ("found", "aps", "translation"),
    [
        # One is found, 0.6 m beside: recall 0.5 at precision 1 gives 40 of 90 steps, but at 0.5 m nothing.
        ([boxes([CAR], [(10.0, 0.6, 0.0)]), boxes()], [0, 4 / 9, 4 / 9, 4 / 9], 0.6),
        # Both, 0.2 m and 0.4 m beside: all, and the mean error over recalls 0.11 to 1 of the running mean, which is
        # 0.2 up to recall 0.5 and then rises to 0.3 in proportion to the score's fall: (40 * 0.2 + 50 * 0.251) / 90.
        (
            [boxes([CAR], [(10.0, 0.2, 0.0)], [0.9]), boxes([CAR], [(10.0, 0.4, 0.0)], [0.8])],
            [1, 1, 1, 1],
            (40 * 0.2 + sum(0.2 + 0.1 * step / 50 for step in range(1, 51))) / 90,
        ),
        # A better scored ghost before each hit; (recall, precision) are (0, 0), (1/2, 1/2), (1/2, 1/3), (1, 1/2).
        (
            [boxes([CAR] * 2, [*HERE, (30, 9, 0)], [s, s + 0.05]) for s in (0.8, 0.5)],
            [
                sum(step / 100 - 0.1 for step in range(11, 50)) / 81
                + sum(1 / 3 + (step - 50) / 300 - 0.1 for step in range(50, 101)) / 81
            ]
            * 4,
            0.0,
        ),
        # Out of the class range: as if it were not there.
        ([boxes([CAR], FAR), boxes()], [0, 0, 0, 0], 1.0),
    ],
)
def test_average_precision_by_hand(found, aps, translation):
    truth = boxes([CAR], HERE)
    scores = score([sample(entry, truth, str(index)) for index, entry in enumerate(found)])
    car = scores.classes["car"]
    assert list(car.aps) == [0.5, 1.0, 2.0, 4.0]
    assert list(car.aps.values()) == pytest.approx(aps, abs=1e-12)
    assert car.errors["mATE"] == pytest.approx(translation, abs=1e-12)
    assert scores.mean_ap == pytest.approx(np.mean(aps) / 10)
    assert car.truths == 2


def test_a_velocity_that_is_not_known_is_not_compared():
    truth = boxes([CAR, CAR], [(10, 0, 0), (20, 0, 0)], velocities=[(2, 0), (0, 0)])
    found = boxes([CAR, CAR], [(10, 0, 0), (20, 0, 0)], [0.9, 0.8], velocities=[(5, 4), (7, 7)])
    known = EvaluationSample("0", found, truth, np.array([True, False]))
    assert score([known]).classes["car"].errors["mAVE"] == pytest.approx(5.0)


def test_the_score_of_the_best_f1():
    """With the boxes from 0.7 on three of four cars are found and none is false, F1 = 6 / 7; with all, 6 / 9."""
    places = [(10.0 * step, 0, 0) for step in range(-2, 2)]
    truth = boxes([CAR] * 4, places)
    found = boxes([CAR] * 5, [*places[:3], (5, 20, 0), (15, 20, 0)], [0.9, 0.8, 0.7, 0.4, 0.3])
    scores = score([sample(found, truth)])
    assert scores.classes["car"].best_score == pytest.approx(0.7, abs=0.01)  # of 101 recalls
    assert scores.as_json()["classes"]["bus"]["best_score"] is None
    assert "--score-threshold" not in score_table(scores, 1)
    everything = score_table(score([sample(EVERYTHING, EVERYTHING)]), 1)
    assert f"--score-threshold {','.join(['0.80'] * 10)}" in everything


def test_table_names_what_the_numbers_rest_on():
    table = score_table(score([sample(EVERYTHING, boxes([CAR], HERE))]), 1)
    assert "NDS" in table and "mAAE" in table
    assert "No truth of barrier, bicycle, bus" in table
    json.dumps(score([sample(EVERYTHING, EVERYTHING)]).as_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("found", "truth", "pairs", "missed", "spurious"),
    [
        (boxes(), boxes(), [], [], []),
        (boxes(), boxes([CAR], HERE), [], [0], []),
        (boxes([CAR], HERE), boxes(), [], [], [0]),
        (boxes([CLASS_ID["bus"]], HERE), boxes([CAR], HERE), [], [0], [0]),
        # The better scored takes the object though the other is nearer.
        (boxes([CAR, CAR], [(10, 0, 0), (11, 0, 0)], [0.3, 0.9]), boxes([CAR], HERE), [(1, 0)], [], [0]),
        (boxes([CAR], [(12, 0, 0)]), boxes([CAR], HERE), [], [0], [0]),
    ],
)
def test_matching(found, truth, pairs, missed, spurious):
    matches = match(found, truth, 2.0)
    assert list(zip(matches.detection.tolist(), matches.truth.tolist(), strict=True)) == pairs
    assert (matches.missed.tolist(), matches.spurious.tolist()) == (missed, spurious)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return open_dataset(write_miniature(tmp_path_factory.mktemp("nuscenes") / "data", with_images=False), VERSION)


def disturbed(truth, random):
    """Some objects missed, some found twice, all a little wrong, some under another name."""
    rows = random.choice(len(truth), len(truth), replace=True)
    found, count = truth.select(rows), len(rows)
    labels = np.where(random.random(count) < 0.1, random.integers(0, len(CLASS_NAMES), count), found.labels)
    sensible = labels == found.labels
    return replace(
        found,
        centers=found.centers + random.normal(0, [0.6, 0.6, 0.1], (count, 3)),
        sizes=found.sizes * random.uniform(0.8, 1.25, (count, 3)),
        yaws=found.yaws + random.normal(0, 0.3, count),
        velocities=found.velocities + random.normal(0, 0.5, (count, 2)),
        scores=random.random(count),
        labels=labels,
        attributes=np.where(sensible, found.attributes, NO_ATTRIBUTE),
    )


def test_equals_the_devkits_whole_evaluation(dataset, tmp_path):
    """Ours on boxes in the ego frame; the devkit's on the data set's tables and the submission written from them."""
    random = np.random.default_rng(0)
    samples, results = [], {}
    for record in dataset.sample:
        truth = sample_annotations(dataset, record)
        found = disturbed(truth.boxes, random)
        result = SampleResult(found, sample_pose(dataset, record))
        results[record["token"]] = result
    results[dataset.sample[2]["token"]] = None
    write_submission(tmp_path / "results.json", results)
    written = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["results"]
    for record in dataset.sample:
        truth, result = sample_annotations(dataset, record), results[record["token"]]
        found = Detections3D.empty(0) if result is None else with_guessed_attributes(result.boxes)
        samples.append(EvaluationSample(record["token"], found, truth.boxes, truth.velocity_known))
    assert all(len(entries) <= 500 for entries in written.values()) and len(written) == len(dataset.sample)
    evaluation = DetectionEval(dataset, protocol(), str(tmp_path / "results.json"), SPLIT, str(tmp_path), verbose=False)
    expected, _ = evaluation.evaluate()
    scores = score(samples)
    assert 0.1 < scores.mean_ap < 0.9
    assert scores.mean_ap == pytest.approx(expected.mean_ap, abs=1e-9)
    assert scores.nds == pytest.approx(expected.nd_score, abs=1e-9)
    assert list(scores.errors.values()) == pytest.approx(list(expected.tp_errors.values()), abs=1e-9)
    for name, entry in scores.classes.items():
        assert entry.ap == pytest.approx(expected.mean_dist_aps[name], abs=1e-9)
        wanted = [expected.get_label_tp(name, f"{error}_err") for error in ("trans", "scale", "orient", "vel", "attr")]
        assert list(entry.errors.values()) == pytest.approx(wanted, abs=1e-9, nan_ok=True)
