"""Results as the nuScenes detection benchmark wants them: one JSON file, boxes in the global frame."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bevformer_ros import geometry
from bevformer_ros.evaluation.attributes import with_guessed_attributes
from bevformer_ros.evaluation.protocol import best, in_range, protocol
from bevformer_ros.taxonomy import ATTRIBUTE_NAMES, CLASS_NAMES, NO_ATTRIBUTE
from bevformer_ros.types import Detections3D
from bevformer_ros.unfinished import written_whole


@dataclass(frozen=True)
class SampleResult:
    """Boxes in the ego frame, and where that was: (4, 4) at the boxes' stamp."""

    boxes: Detections3D
    global_from_ego: NDArray[np.float64]


def submission(results: Mapping[str, SampleResult | None]) -> dict[str, Any]:
    """The content of the file. results: by sample token, None where nothing was detected or nothing is known; every
    sample of the split must be there."""
    flags = {f"use_{name}": name == "camera" for name in ("camera", "lidar", "radar", "map", "external")}
    return {
        "meta": flags,
        "results": {token: [] if result is None else _sample_boxes(token, result) for token, result in results.items()},
    }


def write_submission(path: Path, results: Mapping[str, SampleResult | None]) -> None:
    with written_whole(path) as partial:
        partial.write_text(json.dumps(submission(results)), encoding="utf-8")


def _sample_boxes(token: str, result: SampleResult) -> list[dict[str, Any]]:
    config = protocol()
    boxes = result.boxes.select(in_range(result.boxes, config))
    boxes = with_guessed_attributes(best(boxes, config.max_boxes_per_sample))
    rotation = result.global_from_ego[:3, :3]
    centers = geometry.apply(result.global_from_ego, boxes.centers)
    velocities = np.column_stack([boxes.velocities, np.zeros(len(boxes))]) @ rotation.T
    entries = []
    for index in range(len(boxes)):
        global_from_box = result.global_from_ego @ geometry.transform_from_rpy((0, 0, 0), (0, 0, boxes.yaws[index]))
        x, y, z, w = geometry.quaternion_xyzw(global_from_box).tolist()
        length, width, height = boxes.sizes[index].tolist()
        attribute = boxes.attributes[index]
        entries.append(
            {
                "sample_token": token,
                "translation": centers[index].tolist(),
                "size": [width, length, height],
                "rotation": [w, x, y, z],
                "velocity": velocities[index, :2].tolist(),
                "detection_name": CLASS_NAMES[boxes.labels[index]],
                "detection_score": float(boxes.scores[index]),
                "attribute_name": "" if attribute == NO_ATTRIBUTE else ATTRIBUTE_NAMES[attribute],
            }
        )
    return entries
