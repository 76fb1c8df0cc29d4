"""The recorded keyframe: its boxes project where frame.json's own matrices put them."""

import json

import numpy as np
import pytest

from bevformer_ros import geometry
from bevformer_ros.datasets.keyframe import keyframe_surround_frame, keyframe_truth, load_keyframe


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match=r"holds no frame\.json"):
        load_keyframe(tmp_path)
    (tmp_path / "frame.json").write_text(json.dumps({"timestamp_ns": 1, "cameras": {}}))
    with pytest.raises(ValueError, match="lacks ego_to_global, lidar_to_ego, objects"):
        load_keyframe(tmp_path)


def test_no_objects_give_no_boxes():
    assert len(keyframe_truth({"timestamp_ns": 1, "objects": []})) == 0


def test_only_valid_objects_of_our_classes_count():
    entry = {"class": "car", "center": [1, 2, 3], "size_lwh": [4, 2, 1.5], "yaw": 0.1, "velocity": [float("nan"), 0]}
    truth = keyframe_truth({"timestamp_ns": 1, "objects": [entry, {**entry, "valid": False}, {**entry, "class": "?"}]})
    assert len(truth) == 1
    assert truth.velocities.tolist() == [[0.0, 0.0]]


def test_boxes_project_as_the_recorded_matrices_say(shared_directory):
    folder = shared_directory / "data" / "nuscenes_frame"
    frame, recorded = keyframe_surround_frame(folder), load_keyframe(folder)
    centers = keyframe_truth(recorded).centers
    for camera in frame.cameras:
        points = geometry.apply(recorded["cameras"][camera.name]["lidar_to_camera"], centers)
        ours = geometry.apply(camera.camera_from_bev, centers)
        np.testing.assert_allclose(ours, points, atol=1e-4)
