"""What both heads are taught about a labelled frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from drives import labelled_frame, pixels_of

from bevformer_ros import geometry
from bevformer_ros.inference.preprocessing import Preprocessor
from bevformer_ros.model.config import ImageConfig, ModelConfig
from bevformer_ros.taxonomy import CLASS_ID
from bevformer_ros.training.batch import make_batch, projected_boxes2d
from bevformer_ros.training.labelled_frame import LabelledFrame
from bevformer_ros.training.perspective_targets import NO_ATTRIBUTE

CPU = torch.device("cpu")
IMAGE = ImageConfig(source_size=(160, 90), crop=(0, 26, 160, 90), height=64)
MODEL = ModelConfig("test", IMAGE, cameras=("CAM_FRONT_RIGHT", "CAM_FRONT_LEFT"))


def batch_of(*samples: LabelledFrame):
    return make_batch(samples, Preprocessor(IMAGE, CPU), MODEL)


def test_shapes_of_a_batch() -> None:
    batch = batch_of(labelled_frame(0), labelled_frame(1))
    assert batch.inputs.images.shape == (2, 2, 3, 64, 160)
    assert batch.inputs.camera_valid.shape == (2, 2)
    assert batch.inputs.image_from_bev.shape == (2, 2, 4, 4)
    assert len(batch.bev_truth) == 2
    assert len(batch.perspective_truth) == 4


def test_bev_truth_knows_which_velocities_are_unknown() -> None:
    (truth,) = batch_of(labelled_frame()).bev_truth
    assert truth.labels.tolist() == [CLASS_ID["car"], CLASS_ID["traffic_cone"]]
    assert truth.boxes.velocities[0].tolist() == [1.0, 3.0]
    assert truth.boxes.velocities[1].isnan().all()


def test_objects_out_of_range_are_no_bev_truth() -> None:
    sample = labelled_frame()
    far = replace(sample.truth, centers=sample.truth.centers + np.array([0, 60, 0]))
    (truth,) = batch_of(replace(sample, truth=far)).bev_truth
    assert len(truth.labels) == 0


def test_a_scaled_world_leaves_perspective_targets_alone() -> None:
    plain, scaled = batch_of(labelled_frame()), batch_of(replace(labelled_frame(), bev_scale=1.1))
    for expected, found in zip(plain.perspective_truth, scaled.perspective_truth, strict=True):
        for name, values in found._asdict().items():
            assert torch.equal(values.nan_to_num(), getattr(expected, name).nan_to_num()), name


def test_a_scaled_world_is_larger_on_the_map_and_the_same_in_the_picture() -> None:
    plain, scaled = batch_of(labelled_frame()), batch_of(replace(labelled_frame(), bev_scale=1.1))
    boxes, larger = plain.bev_truth[0].boxes, scaled.bev_truth[0].boxes
    for name in ("centers", "sizes", "velocities"):
        assert torch.allclose(getattr(larger, name), 1.1 * getattr(boxes, name), equal_nan=True)
    assert np.allclose(_pixels(scaled.projections, larger.centers), _pixels(plain.projections, boxes.centers))
    assert np.allclose(scaled.poses[0][:3, 3], 1.1 * plain.poses[0][:3, 3])
    assert scaled.scales.tolist() == pytest.approx([1.1])


def _pixels(projections: np.ndarray, centers: torch.Tensor) -> np.ndarray:
    """(n, 2) in the first camera."""
    points = projections[0, 0] @ np.concatenate([centers.numpy(), np.ones((len(centers), 1))], axis=1).T
    return (points[:2] / points[2]).T


def test_perspective_truth_is_the_box_where_the_camera_saw_it() -> None:
    sample = labelled_frame()
    right, left = batch_of(sample).perspective_truth
    assert right.labels.tolist() == [CLASS_ID["car"]]
    assert left.labels.tolist() == [CLASS_ID["traffic_cone"]]
    camera = sample.frame.cameras[0]
    assert camera is not None
    later = sample.truth.centers[0] + 0.02 * np.array([1.0, 3.0, 0.0])  # the camera exposes 20 ms after the stamp
    assert np.allclose(right.centers[0], geometry.apply(camera.camera_from_bev, later))
    heading = camera.camera_from_bev[:3, :3] @ (np.cos(1.2), np.sin(1.2), 0)
    assert np.allclose(right.rotations[0][:, 0], heading)
    assert right.speeds.tolist() == pytest.approx([10**0.5])
    assert right.attributes.tolist() == [2]  # vehicle: moving, parked, stopped
    assert left.speeds.isnan().all()
    assert left.attributes.tolist() == [NO_ATTRIBUTE]


def test_boxes2d_enclose_the_projection_in_the_network_input() -> None:
    sample = labelled_frame()
    still = replace(sample, truth=replace(sample.truth, velocities=np.zeros((2, 2))))
    pixels = pixels_of(still, 0)[0] - (0, 26)  # the crop; nothing is resized
    (right, _) = batch_of(still).perspective_truth
    expected = np.clip([*pixels.min(0), *pixels.max(0)], 0, (160, 64, 160, 64))
    assert np.allclose(right.boxes2d[0], expected)


def test_a_camera_teaches_only_what_it_shows() -> None:
    sample = labelled_frame()
    unseen = replace(sample, visible=np.zeros((2, 2), np.bool_))
    assert [len(truth.labels) for truth in batch_of(unseen).perspective_truth] == [0, 0]
    without_left = replace(sample, frame=replace(sample.frame, cameras=(sample.frame.cameras[0], None)))
    assert [len(truth.labels) for truth in batch_of(without_left).perspective_truth] == [1, 0]


def test_what_lies_behind_the_camera_has_no_sides() -> None:
    corners = np.array([[-1.0, 0, -5], [1, 1, -4]] * 4)[None]
    _, sides = projected_boxes2d(np.diag([100.0, 100, 1]), corners, (160, 64))
    assert (sides <= 0).all()
    _, sides = projected_boxes2d(np.diag([100.0, 100, 1]), np.zeros((0, 8, 3)), (160, 64))
    assert sides.shape == (0, 2)
