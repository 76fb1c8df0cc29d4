"""Scenes of a nuScenes data set as training data, or of any data set in its format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bevformer_ros import geometry
from bevformer_ros.datasets.nuscenes_tables import (
    pose_matrix,
    sample_annotations,
    samples_of_scene,
    scenes_of_split,
    sensor_pose,
    stamp_ns,
)
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.training.labelled_frame import LabelledFrame
from bevformer_ros.training.visibility import shown_by
from bevformer_ros.types import CameraImage, SurroundFrame

if TYPE_CHECKING:
    from nuscenes import NuScenes

KEYFRAME_INTERVAL_S = 0.5
_LIDAR = "LIDAR_TOP"
_JPEG_END = b"\xff\xd9"
_JPEG_TRAIL = 1024  # bytes at the end of a file, among which the JPEG must end


class NuscenesDataset:
    """Implements DriveDataset: a drive is a scene, its frames are the keyframes.

    The BEV frame is the lidar's at the sample's time; each camera stands where it was at its own. The truth is what the
    official training takes: the ten classes, at least one lidar or radar point, within the BEV grid along x and y.
    """

    def __init__(self, dataset: NuScenes, split: str, model: ModelConfig) -> None:
        """Raises ValueError where the split or the annotations are not there, where a scene lacks a camera of the
        model, and for a model with another interval of its history. Images are read only when they are wanted."""
        if model.temporal.interval_s != KEYFRAME_INTERVAL_S:
            raise ValueError(
                f"model {model.name} wants frames every {model.temporal.interval_s} s, keyframes of nuScenes are "
                f"{KEYFRAME_INTERVAL_S} s apart; set temporal.interval_s to that"
            )
        if not dataset.sample_annotation:
            raise ValueError(f"{dataset.version} has no annotations to learn from (those of the test set are secret)")
        self._dataset, self._model = dataset, model
        self._scenes = scenes_of_split(dataset, split)
        self._drives = [samples_of_scene(dataset, scene) for scene in self._scenes]
        for scene, samples in zip(self._scenes, self._drives, strict=True):
            missing = {name for sample in samples for name in (_LIDAR, *model.cameras) if name not in sample["data"]}
            if missing:
                raise ValueError(f"{scene} has keyframes without {', '.join(sorted(missing))}, which the model needs")

    @property
    def lengths(self) -> Sequence[int]:
        return [len(samples) for samples in self._drives]

    def frames(self, drive: int, first: int, count: int) -> list[LabelledFrame]:
        """Raises ValueError that names an image which is missing or damaged."""
        return [self._labelled(self._scenes[drive], sample) for sample in self._drives[drive][first : first + count]]

    def _labelled(self, scene: str, sample: dict[str, Any]) -> LabelledFrame:
        sweep = self._dataset.get("sample_data", sample["data"][_LIDAR])
        world_from_bev = sensor_pose(self._dataset, sweep)
        cameras = [self._camera(name, sample["data"][name], world_from_bev) for name in self._model.cameras]
        found = sample_annotations(self._dataset, sample)
        ego_from_bev = pose_matrix(self._dataset.get("calibrated_sensor", sweep["calibrated_sensor_token"]))
        boxes = found.boxes.transformed(geometry.invert(ego_from_bev))
        low, high = np.array(self._model.bev.range).reshape(2, 3)[:, :2]
        inside = ((boxes.centers[:, :2] > low) & (boxes.centers[:, :2] < high)).all(axis=1)
        truth = boxes.select(inside)
        return LabelledFrame(
            SurroundFrame(stamp_ns(sample), tuple(cameras), world_from_bev, scene),
            truth,
            found.velocity_known[inside],
            np.stack([shown_by(camera, truth) for camera in cameras], axis=1),
        )

    def _camera(self, name: str, token: str, world_from_bev: NDArray[np.float64]) -> CameraImage:
        record = self._dataset.get("sample_data", token)
        calibration = self._dataset.get("calibrated_sensor", record["calibrated_sensor_token"])
        return CameraImage(
            name,
            stamp_ns(record),
            _read_image(Path(self._dataset.dataroot) / record["filename"], (record["width"], record["height"])),
            np.array(calibration["camera_intrinsic"], np.float64),
            geometry.invert(sensor_pose(self._dataset, record)) @ world_from_bev,
        )


def _read_image(file: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W, 3) BGR of an image whose tables give the size (W, H)."""
    if not file.is_file():
        raise ValueError(
            f"{file} is missing, though the tables name it; unpack the archive that holds it into the same folder, or "
            "train on a split whose scenes are all there"
        )
    content = file.read_bytes()
    mode = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(content, np.uint8), mode) if content else None
    # OpenCV fills what a shortened JPEG lacks with grey.
    shortened = file.suffix == ".jpg" and _JPEG_END not in content[-_JPEG_TRAIL:]
    if image is None or shortened:
        raise ValueError(f"{file} is damaged ({len(content)} bytes); unpack it again from the archive that holds it")
    if image.shape[1::-1] != size:
        raise ValueError(
            f"{file} has {image.shape[1]} x {image.shape[0]} pixels, the tables say {size[0]} x {size[1]}; the "
            "calibration holds for the latter, so do not resize the images of a data set"
        )
    return np.asarray(image, np.uint8)
