"""Official boxes through our conventions into the global frame (the geometry of golden case 7)."""

from __future__ import annotations

import json
from pathlib import Path

import golden_cases
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from torch import Tensor

from bevformer_ros import geometry
from bevformer_ros.model.box_coding import official_to_boxes
from bevformer_ros.taxonomy import CLASSES, NO_ATTRIBUTE
from bevformer_ros.types import Detections3D


def as_detections(tensors: dict[str, Tensor]) -> Detections3D:
    """Official boxes with z at the bottom, in the lidar frame."""
    official = tensors["boxes_3d"].double()
    official[:, 2] += official[:, 5] / 2
    boxes = official_to_boxes(official)
    count = len(official)
    return Detections3D(
        0,
        *(values.numpy() for values in boxes),
        scores=tensors["scores_3d"].double().numpy(),
        labels=tensors["labels_3d"].numpy(),
        attributes=np.full(count, NO_ATTRIBUTE),
        from_proposal=np.zeros(count, np.bool_),
    )


def transform(tensors: dict[str, Tensor], name: str) -> geometry.Array:
    w, x, y, z = tensors[f"{name}_rotation"].tolist()
    return geometry.transform(tensors[f"{name}_translation"].numpy(), (x, y, z, w))


@pytest.mark.parametrize("path", golden_cases.variants("case7_nuscenes_results"))
def test_boxes_reach_the_global_frame(path: Path) -> None:
    tensors, description = golden_cases.load(path)
    expected = json.loads(path.with_name(description["expected"]).read_text(encoding="utf-8"))["results"]
    for index, wanted in enumerate(expected.values()):
        sample = golden_cases.part(tensors, f"inputs.sample{index}.")
        detections, ego_from_lidar = as_detections(sample), transform(sample, "lidar2ego")
        distances = np.linalg.norm(detections.transformed(ego_from_lidar).centers[:, :2], axis=1)
        ranges = np.array([description["class_range"][entry.name] for entry in CLASSES])
        kept = detections.select(distances <= ranges[detections.labels])
        boxes = kept.transformed(transform(sample, "ego2global") @ ego_from_lidar)
        assert [CLASSES[label].name for label in boxes.labels] == [box["detection_name"] for box in wanted]
        close = {"rtol": 1e-5, "atol": 1e-4}
        np.testing.assert_allclose(boxes.centers, [box["translation"] for box in wanted], **close)
        np.testing.assert_allclose(boxes.sizes[:, [1, 0, 2]], [box["size"] for box in wanted], **close)
        np.testing.assert_allclose(boxes.velocities, [box["velocity"] for box in wanted], **close)
        np.testing.assert_allclose(boxes.scores, [box["detection_score"] for box in wanted], **close)
        headings = Rotation.from_quat([np.roll(box["rotation"], -1) for box in wanted]).as_matrix()[:, :2, 0]
        difference = geometry.wrap_angle(boxes.yaws - np.arctan2(headings[:, 1], headings[:, 0]))
        assert np.abs(difference).max() < 1e-3, "ours is the heading; the tilt of the road is dropped on the way"
