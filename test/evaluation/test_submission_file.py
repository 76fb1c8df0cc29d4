"""Submissions: golden case 7, and what the devkit's loader accepts."""

from __future__ import annotations

import json
from pathlib import Path

import golden_cases
import numpy as np
import pytest

pytest.importorskip("nuscenes", reason="needs nuscenes-devkit, which `make env` installs")

from nuscenes.eval.common.loaders import load_prediction
from nuscenes.eval.detection.data_classes import DetectionBox
from scipy.spatial.transform import Rotation
from torch import Tensor

from bevformer_ros import geometry
from bevformer_ros.evaluation.attributes import with_guessed_attributes
from bevformer_ros.evaluation.submission_file import SampleResult, submission, write_submission
from bevformer_ros.model.box_coding import official_to_boxes
from bevformer_ros.taxonomy import ATTRIBUTE_NAMES, CLASS_ID, NO_ATTRIBUTE
from bevformer_ros.types import Detections3D


def boxes(count, label="car", speed=0.0, attribute=NO_ATTRIBUTE):
    return Detections3D(
        0,
        centers=np.tile([10.0, 5.0, 1.0], (count, 1)),
        sizes=np.tile([4.0, 2.0, 1.5], (count, 1)),
        yaws=np.zeros(count),
        velocities=np.tile([speed, 0.0], (count, 1)),
        scores=np.linspace(0.1, 0.9, count),
        labels=np.full(count, CLASS_ID[label]),
        attributes=np.full(count, attribute),
        from_proposal=np.zeros(count, np.bool_),
    )


def as_detections(tensors: dict[str, Tensor]) -> Detections3D:
    """Official boxes with z at the bottom, in the lidar frame."""
    official = tensors["boxes_3d"].double()
    official[:, 2] += official[:, 5] / 2
    count = len(official)
    return Detections3D(
        0,
        **{name: values.numpy() for name, values in official_to_boxes(official)._asdict().items()},
        scores=tensors["scores_3d"].double().numpy(),
        labels=tensors["labels_3d"].numpy(),
        attributes=np.full(count, NO_ATTRIBUTE),
        from_proposal=np.zeros(count, np.bool_),
    )


def transform(tensors: dict[str, Tensor], name: str) -> geometry.Array:
    w, x, y, z = tensors[f"{name}_rotation"].tolist()
    return geometry.transform(tensors[f"{name}_translation"].numpy(), (x, y, z, w))


@pytest.mark.parametrize("path", golden_cases.variants("case7_nuscenes_results"))
def test_official_formatting_golden(path: Path) -> None:
    """All fields, and the tilt of the road in the rotation but for the lidar's own tilt against the car."""
    tensors, description = golden_cases.load(path)
    expected = json.loads(path.with_name(description["expected"]).read_text(encoding="utf-8"))
    results, tilts = {}, {}
    for index, token in enumerate(expected["results"]):
        sample = golden_cases.part(tensors, f"inputs.sample{index}.")
        in_ego = as_detections(sample).transformed(transform(sample, "lidar2ego"))
        tilts[token] = np.arccos(transform(sample, "lidar2ego")[2, 2])
        results[token] = SampleResult(in_ego, transform(sample, "ego2global"))
    ours = submission(results)
    assert ours["meta"] == expected["meta"]
    close = {"rtol": 1e-5, "atol": 1e-4}
    for token, wanted in expected["results"].items():
        found = ours["results"][token]
        for name in ("sample_token", "detection_name", "attribute_name"):
            assert [box[name] for box in found] == [box[name] for box in wanted]
        for name in ("translation", "size", "detection_score"):
            np.testing.assert_allclose([box[name] for box in found], [box[name] for box in wanted], **close)
        velocities = ([box["velocity"] for box in entry] for entry in (found, wanted))
        np.testing.assert_allclose(*velocities, atol=2e-3)  # ours is level in the ego frame, theirs in the lidar's
        turns = [Rotation.from_quat([np.roll(box["rotation"], -1) for box in entry]) for entry in (found, wanted)]
        np.testing.assert_allclose((turns[0].inv() * turns[1]).magnitude(), tilts[token], atol=1e-3)
        headings = [np.arctan2(turn.as_matrix()[:, 1, 0], turn.as_matrix()[:, 0, 0]) for turn in turns]
        assert np.abs(geometry.wrap_angle(headings[0] - headings[1])).max() < 1e-3


def test_the_devkit_loads_it(tmp_path):
    """Samples without boxes are there; of too many the best remain."""
    results = {"a": SampleResult(boxes(600), np.eye(4)), "b": None, "c": SampleResult(boxes(0), np.eye(4))}
    write_submission(tmp_path / "out" / "results.json", results)
    loaded, meta = load_prediction(str(tmp_path / "out" / "results.json"), 500, DetectionBox)
    assert [len(loaded[token]) for token in ("a", "b", "c")] == [500, 0, 0]
    assert max(box.detection_score for box in loaded["a"]) == pytest.approx(0.9)
    assert min(box.detection_score for box in loaded["a"]) > 0.2
    assert meta["use_camera"] and not meta["use_lidar"]


@pytest.mark.parametrize(
    ("label", "speed", "attribute", "expected"),
    [
        ("car", 0.0, NO_ATTRIBUTE, "vehicle.parked"),
        ("car", 0.3, NO_ATTRIBUTE, "vehicle.moving"),
        ("bus", 0.1, NO_ATTRIBUTE, "vehicle.stopped"),
        ("pedestrian", 0.1, NO_ATTRIBUTE, "pedestrian.standing"),
        ("pedestrian", 1.0, NO_ATTRIBUTE, "pedestrian.moving"),
        ("bicycle", 1.0, NO_ATTRIBUTE, "cycle.with_rider"),
        ("barrier", 1.0, NO_ATTRIBUTE, None),
        ("car", 9.0, ATTRIBUTE_NAMES.index("vehicle.stopped"), "vehicle.stopped"),
    ],
)
def test_attributes(label, speed, attribute, expected):
    (found,) = with_guessed_attributes(boxes(1, label, speed, attribute)).attributes
    assert (None if found == NO_ATTRIBUTE else ATTRIBUTE_NAMES[found]) == expected
