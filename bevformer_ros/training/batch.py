"""From labelled frames to what one training step takes: network input and the truth of both heads.

Shapes: B samples, N cameras, H x W network input, n objects of a sample or image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bevformer_ros import geometry
from bevformer_ros.inference.preprocessing import PreparedFrame, Preprocessor
from bevformer_ros.model.box_coding import Boxes
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.model.network import NetworkInputs
from bevformer_ros.taxonomy import ATTRIBUTE_NAMES, CLASSES
from bevformer_ros.training.bev_loss import BevTruth
from bevformer_ros.training.labelled_frame import LabelledFrame
from bevformer_ros.training.perspective_targets import NO_ATTRIBUTE, PerspectiveTruth
from bevformer_ros.training.visibility import at_exposure
from bevformer_ros.types import Detections3D

_SMALLEST_SIDE = 2.0  # pixels of the network input that an object must show along both axes


class Batch(NamedTuple):
    """stamps_ns, poses (world_from_bev): of the samples. scales: (B,) their bev_scale. projections: image_from_bev of
    the inputs in float64, for the history. perspective_truth: B*N entries.

    What belongs to the BEV side is scaled: poses, image_from_bev, projections and bev_truth; camera_from_bev, which
    carries proposals, is not.
    """

    stamps_ns: tuple[int, ...]
    poses: tuple[NDArray[np.float64], ...]
    scales: Tensor
    inputs: NetworkInputs
    projections: NDArray[np.float64]
    bev_truth: tuple[BevTruth, ...]
    perspective_truth: tuple[PerspectiveTruth, ...]


def moved(value: Any, device: torch.device) -> Any:
    """The value, a batch or a part of one, with all its tensors on the device."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, tuple):
        items = [moved(item, device) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return value


class ClipBatches:
    """Makes, of the clips of a round, batches of `width` samples on the CPU: what a loader's workers do."""

    def __init__(self, config: ModelConfig, width: int) -> None:
        self._config, self._width = config, width
        self._preprocess = Preprocessor(config.image, torch.device("cpu"))

    def __call__(self, clips: Sequence[Sequence[LabelledFrame]]) -> list[list[Batch]]:
        """As many lists as the shortest clip has frames, each of the batches that make one step."""
        firsts = range(0, len(clips), self._width)
        return [
            [make_batch(samples[first : first + self._width], self._preprocess, self._config) for first in firsts]
            for samples in zip(*clips, strict=False)
        ]


def make_batch(samples: Sequence[LabelledFrame], preprocess: Preprocessor, config: ModelConfig) -> Batch:
    prepared = [preprocess(sample.frame) for sample in samples]
    device = prepared[0].images.device
    inputs = NetworkInputs(*map(torch.cat, zip(*(entry.network_inputs() for entry in prepared), strict=True)))
    projections = np.stack(
        [entry.image_from_bev @ _shrinking(sample) for sample, entry in zip(samples, prepared, strict=True)]
    )
    return Batch(
        stamps_ns=tuple(sample.frame.stamp_ns for sample in samples),
        poses=tuple(_scaled(sample.frame.world_from_bev, sample.bev_scale) for sample in samples),
        scales=torch.tensor([sample.bev_scale for sample in samples], device=device),
        inputs=inputs._replace(image_from_bev=torch.from_numpy(projections).to(device, torch.float32)),
        projections=projections,
        bev_truth=tuple(bev_truth_of(sample, config.bev.range, device) for sample in samples),
        perspective_truth=tuple(
            truth
            for sample, entry in zip(samples, prepared, strict=True)
            for truth in _perspective_truths(sample, entry, config, device)
        ),
    )


def _shrinking(sample: LabelledFrame) -> NDArray[np.float64]:
    """(4, 4) from the scaled BEV frame to the true one."""
    return np.diag([*3 * [1 / sample.bev_scale], 1.0])


def _scaled(transform: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """The rigid motion (4, 4) in a world `scale` times as large."""
    scaled = transform.copy()
    scaled[:3, 3] *= scale
    return scaled


def bev_truth_of(sample: LabelledFrame, detection_range: tuple[float, ...], device: torch.device) -> BevTruth:
    """The objects, scaled, whose centre lies in the range of the BEV grid; velocity NaN where unknown."""
    low, high = np.array(detection_range).reshape(2, 3)
    centers, scale = sample.truth.centers * sample.bev_scale, sample.bev_scale
    inside = ((centers >= low) & (centers <= high)).all(axis=1)
    truth = sample.truth.select(np.asarray(inside))
    velocities = np.where(sample.velocity_known[inside, None], truth.velocities * scale, np.nan)
    values = (centers[inside], truth.sizes * scale, truth.yaws, velocities)
    parts = (torch.from_numpy(part).to(device) for part in values)
    return BevTruth(Boxes(*parts), torch.from_numpy(truth.labels).to(device))


def _perspective_truths(
    sample: LabelledFrame, entry: PreparedFrame, config: ModelConfig, device: torch.device
) -> list[PerspectiveTruth]:
    return [
        _perspective_truth(sample, index, entry.intrinsics[index], config, device)
        for index in range(len(sample.frame.cameras))
    ]


def _perspective_truth(
    sample: LabelledFrame, index: int, intrinsics: NDArray[np.float64], config: ModelConfig, device: torch.device
) -> PerspectiveTruth:
    """What the camera at an index shows, where it was when the camera exposed; nothing where the camera is missing."""
    camera = sample.frame.cameras[index]
    visible = sample.visible[:, index] & (camera is not None)
    truth, known = sample.truth.select(visible), sample.velocity_known[visible]
    camera_from_bev = np.eye(4)
    if camera is not None:
        truth, camera_from_bev = at_exposure(camera, truth), camera.camera_from_bev
    centers = geometry.apply(camera_from_bev, truth.centers)
    boxes2d, sides = projected_boxes2d(
        intrinsics, geometry.apply(camera_from_bev, truth.corners()), config.image.padded_size
    )
    assert config.perspective is not None
    nearest, farthest = config.perspective.depth_range
    chosen = (sides >= _SMALLEST_SIDE).all(axis=1) & (centers[:, 2] > nearest) & (centers[:, 2] < farthest)
    rotations = camera_from_bev[:3, :3] @ _rotations(truth.yaws)
    speeds = np.where(known, np.linalg.norm(truth.velocities, axis=1), np.nan)
    parts = (boxes2d, truth.labels, centers, truth.sizes, rotations, _attribute_slots(truth), speeds)
    return PerspectiveTruth(*(torch.from_numpy(part[chosen]).to(device) for part in parts))


def projected_boxes2d(
    intrinsics: NDArray[np.float64], corners: NDArray[np.float64], image_size: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """2D boxes (n, 4) left, top, right, bottom around those of the corners (n, 8, 3) that lie in front of the camera,
    cut at the image's border, and their sides (n, 2), zero or less where nothing shows."""
    pixels, _ = geometry.project(intrinsics, corners)
    behind = np.isnan(pixels)
    low = np.where(behind, np.inf, pixels).min(axis=1)
    high = np.where(behind, -np.inf, pixels).max(axis=1)
    boxes = np.concatenate([np.clip(low, 0, image_size), np.clip(high, 0, image_size)], axis=1)
    return boxes, boxes[:, 2:] - boxes[:, :2]


def _rotations(yaws: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 3, 3) about z."""
    rotations = np.tile(np.eye(3), (len(yaws), 1, 1))
    rotations[:, 0, 0] = rotations[:, 1, 1] = np.cos(yaws)
    rotations[:, 1, 0] = np.sin(yaws)
    rotations[:, 0, 1] = -rotations[:, 1, 0]
    return rotations


def _attribute_slots(truth: Detections3D) -> NDArray[np.int64]:
    """(n,) place of each object's attribute among those of its class."""
    return _SLOTS[truth.labels, truth.attributes]


def _slot_table() -> NDArray[np.int64]:
    """(classes, attributes + 1): place of an attribute in its class; NO_ATTRIBUTE, which is -1, reads the last."""
    table = np.full((len(CLASSES), len(ATTRIBUTE_NAMES) + 1), NO_ATTRIBUTE, np.int64)
    for label, entry in enumerate(CLASSES):
        for slot, name in enumerate(entry.attributes):
            table[label, ATTRIBUTE_NAMES.index(name)] = slot
    return table


_SLOTS = _slot_table()
