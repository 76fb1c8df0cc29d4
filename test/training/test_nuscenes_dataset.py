"""Scenes of a miniature data set in nuScenes format, against what the devkit makes of its tables."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

pytest.importorskip("nuscenes", reason="needs nuscenes-devkit, which `make env` installs")

from miniature_nuscenes import SCENES, SPLIT, VERSION, write_miniature
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.utils.geometry_utils import BoxVisibility, box_in_image
from pyquaternion import Quaternion

from bevformer_ros import geometry
from bevformer_ros.datasets.nuscenes_tables import open_dataset, samples_of_scene
from bevformer_ros.model.config import BevGridConfig, ModelConfig, TemporalConfig
from bevformer_ros.taxonomy import ATTRIBUTE_NAMES, CLASS_NAMES
from bevformer_ros.training.nuscenes_dataset import NuscenesDataset

MODEL = ModelConfig("test")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_miniature(tmp_path_factory.mktemp("nuscenes") / "data")


@pytest.fixture(scope="module")
def tables(root):
    return open_dataset(root, VERSION)


@pytest.fixture(scope="module")
def dataset(tables):
    return NuscenesDataset(tables, SPLIT, MODEL)


def test_drives_are_the_scenes_of_the_split(dataset):
    assert list(dataset.lengths) == [3, 3]
    assert dataset.frames(0, 0, 0) == []
    stamps = [entry.frame.stamp_ns for entry in dataset.frames(1, 0, 3)]
    assert np.diff(stamps).tolist() == [500_000_000] * 2
    (last,) = dataset.frames(1, 2, 5)
    assert last.frame.stamp_ns == stamps[2]
    assert last.frame.scene == SCENES[1]


def test_a_split_of_ones_own(root, tables):
    (root / VERSION / "splits.json").write_text('{"mine": ["scene-0916", "scene-9999"]}')
    assert list(NuscenesDataset(tables, "mine", MODEL).lengths) == [3]


def test_cameras(dataset, tables, root):
    """Annotations seen by each camera at its own time, as the devkit has them."""
    (labelled,) = dataset.frames(0, 1, 1)
    sample = samples_of_scene(tables, SCENES[0])[1]
    assert [camera.name for camera in labelled.frame.cameras] == list(MODEL.cameras)
    for camera in labelled.frame.cameras:
        record = tables.get("sample_data", sample["data"][camera.name])
        assert camera.stamp_ns == record["timestamp"] * 1000
        np.testing.assert_array_equal(camera.image, cv2.imread(str(root / record["filename"])))
        _, boxes, intrinsics = tables.get_sample_data(record["token"], selected_anntokens=sample["anns"])
        np.testing.assert_array_equal(camera.intrinsics, intrinsics)
        camera_from_world = camera.camera_from_bev @ geometry.invert(labelled.frame.world_from_bev)
        centers = [tables.get("sample_annotation", box.token)["translation"] for box in boxes]
        ours = geometry.apply(camera_from_world, centers)
        np.testing.assert_allclose(ours, [box.center for box in boxes], atol=1e-6)


@pytest.mark.parametrize("index", [0, 1])
def test_truth(dataset, tables, index):
    (labelled,) = dataset.frames(0, index, 1)
    sample = samples_of_scene(tables, SCENES[0])[index]
    _, boxes, _ = tables.get_sample_data(sample["data"]["LIDAR_TOP"])
    boxes = [box for box in boxes if tables.get("sample_annotation", box.token)["num_lidar_pts"] > 0]
    boxes = [box for box in boxes if np.abs(box.center[:2]).max() < 51.2]
    truth = labelled.truth
    assert len(truth) == len(boxes) > 10
    np.testing.assert_allclose(truth.centers, [box.center for box in boxes], atol=1e-9)
    np.testing.assert_allclose(truth.sizes, [box.wlh[[1, 0, 2]] for box in boxes], atol=1e-9)
    headings = [box.orientation.rotation_matrix[:2, 0] for box in boxes]
    turned = np.arctan2(*np.transpose(headings)[::-1])
    np.testing.assert_allclose(geometry.wrap_angle(truth.yaws - turned), 0, atol=1e-6)
    assert [CLASS_NAMES[label] for label in truth.labels] == [category_to_detection_name(box.name) for box in boxes]
    for row, box in enumerate(boxes):
        velocity = tables.box_velocity(box.token)
        assert labelled.velocity_known[row] == np.isfinite(velocity).all()
        expected = geometry.invert(labelled.frame.world_from_bev)[:3, :3] @ np.nan_to_num(velocity)
        np.testing.assert_allclose(truth.velocities[row], expected[:2], atol=1e-6)
        names = tables.get("sample_annotation", box.token)["attribute_tokens"]
        assert names == ([f"attribute-{ATTRIBUTE_NAMES[truth.attributes[row]]}"] if truth.attributes[row] >= 0 else [])
    assert labelled.velocity_known.all() == (index > 0), "one object of the first sample is seen only once"


def test_truth_ends_with_the_grid(tables):
    near = replace(MODEL, bev=BevGridConfig(range=(-10.0, -20.0, -5.0, 10.0, 20.0, 3.0)))
    (labelled,) = NuscenesDataset(tables, SPLIT, near).frames(0, 1, 1)
    (full,) = NuscenesDataset(tables, SPLIT, MODEL).frames(0, 1, 1)
    inside = (np.abs(full.truth.centers[:, :2]) < (10, 20)).all(axis=1)
    assert 0 < inside.sum() < len(full.truth)
    np.testing.assert_array_equal(labelled.truth.centers, full.truth.centers[inside])
    np.testing.assert_array_equal(labelled.visible, full.visible[inside])


def test_what_the_devkit_sees_in_an_image_is_visible(dataset, tables):
    """It counts fewer: a corner must lie inside the image, and all of them a metre ahead."""
    (labelled,) = dataset.frames(1, 1, 1)
    sample = samples_of_scene(tables, SCENES[1])[1]
    _, boxes, _ = tables.get_sample_data(sample["data"]["LIDAR_TOP"])
    rows = {tuple(np.round(center, 6)): row for row, center in enumerate(labelled.truth.centers)}
    found = np.zeros_like(labelled.visible)
    for column, camera in enumerate(labelled.frame.cameras):
        for box in boxes:
            row = rows.get(tuple(np.round(box.center, 6)))
            box.rotate(_quaternion(camera.camera_from_bev))
            box.translate(camera.camera_from_bev[:3, 3])
            if row is not None and box_in_image(box, camera.intrinsics, (160, 90), BoxVisibility.ANY):
                found[row, column] = True
            box.translate(-camera.camera_from_bev[:3, 3])
            box.rotate(_quaternion(camera.camera_from_bev).inverse)
    assert found.sum() > 10
    assert labelled.visible[found].mean() > 0.95, "only what moves may leave the image between the two exposures"
    assert labelled.visible.sum() < 1.5 * found.sum()


def _quaternion(matrix):
    x, y, z, w = geometry.quaternion_xyzw(matrix)
    return Quaternion(w, x, y, z)


@pytest.mark.parametrize(
    ("split", "model", "complaint"),
    [
        (
            "everything",
            MODEL,
            "no split 'everything'; there are train, val, test, mini_train, .* and those of a splits",
        ),
        ("train_track", MODEL, "v1.0-mini has no scene of the split 'train_track'; it has scenes of .*mini_val"),
        (SPLIT, replace(MODEL, temporal=TemporalConfig(interval_s=0.25)), "every 0.25 s, keyframes .* 0.5 s apart"),
        (SPLIT, replace(MODEL, cameras=("CAM_FRONT", "CAM_TOP")), "scene-0103 has keyframes without CAM_TOP"),
    ],
)
def test_what_is_refused(tables, split, model, complaint):
    with pytest.raises(ValueError, match=complaint):
        NuscenesDataset(tables, split, model)


def test_the_secret_test_set_is_refused(tables, monkeypatch):
    monkeypatch.setattr(tables, "sample_annotation", [])
    with pytest.raises(ValueError, match="has no annotations to learn from"):
        NuscenesDataset(tables, SPLIT, MODEL)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda file: file.unlink(), "is missing, though the tables name it; unpack the archive"),
        (lambda file: file.write_bytes(b""), r"is damaged \(0 bytes\); unpack it again"),
        (lambda file: file.write_bytes(b"no image"), "is damaged"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1500]), "is damaged"),
        (
            lambda file: cv2.imwrite(str(file), np.zeros((45, 80, 3), np.uint8)),
            "has 80 x 45 pixels, the tables say 160",
        ),
    ],
)
def test_a_missing_or_damaged_image_is_named(dataset, tables, root, damage, complaint):
    sample = samples_of_scene(tables, SCENES[0])[2]
    file = root / tables.get("sample_data", sample["data"]["CAM_BACK"])["filename"]
    content = file.read_bytes()
    assert len(dataset.frames(0, 2, 1)) == 1
    try:
        damage(file)
        assert len(dataset.frames(0, 1, 1)) == 1
        with pytest.raises(ValueError, match=f"CAM_BACK/scene-0103__12.jpg {complaint}"):
            dataset.frames(0, 1, 2)
    finally:
        file.write_bytes(content)
