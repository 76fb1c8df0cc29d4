"""A nuScenes data set through its devkit: poses as matrices, annotations as boxes in the ego frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bevformer_ros import geometry
from bevformer_ros.taxonomy import ATTRIBUTE_ID, CLASS_ID, NO_ATTRIBUTE
from bevformer_ros.types import Detections3D

try:
    from nuscenes import NuScenes
    from nuscenes.eval.detection.utils import category_to_detection_name
    from nuscenes.utils.splits import create_splits_scenes, get_scenes_of_split
except ImportError as error:
    raise ImportError(
        f"{error}: nuScenes is read with nuscenes-devkit; `make env` installs it, or: pip install --no-deps "
        "nuscenes-devkit pyquaternion cachetools && pip install matplotlib scikit-learn"
    ) from error

MICROSECOND = 1000


@dataclass(frozen=True)
class Annotations:
    """boxes: in the ego frame at the sample's lidar sweep; a velocity that is not known is 0. velocity_known: (n,).
    instances: (n,) the token of each object, the same in all samples. visibility: (n,) from 1, up to 40 % of the object
    in sight of the cameras, over 60 and 80 % to 4."""

    boxes: Detections3D
    velocity_known: NDArray[np.bool_]
    instances: tuple[str, ...]
    visibility: NDArray[np.int64]


def open_dataset(dataroot: Path, version: str) -> NuScenes:
    """Raises ValueError where the tables of the version are not there."""
    if not (dataroot / version / "sample.json").is_file():
        versions = sorted(path.parent.name for path in dataroot.glob("*/sample.json"))
        raise ValueError(f"{dataroot} has no tables of {version!r}; it has {', '.join(versions) or 'no version'}")
    return NuScenes(version, str(dataroot), verbose=False)


def samples_of_scene(dataset: NuScenes, scene: str) -> list[dict[str, Any]]:
    """In order of time. Raises ValueError that lists the scenes there are."""
    records = {record["name"]: record for record in dataset.scene}
    if scene not in records:
        raise ValueError(f"there is no scene {scene!r}; there are {', '.join(sorted(records))}")
    samples = [dataset.get("sample", records[scene]["first_sample_token"])]
    while samples[-1]["next"]:
        samples.append(dataset.get("sample", samples[-1]["next"]))
    return samples


def scenes_of_split(dataset: NuScenes, split: str) -> list[str]:
    """Those of the devkit's split, or of one in splits.json beside the tables, that the tables have.

    Raises ValueError for an unknown split, and where the tables have none of its scenes.
    """
    known = create_splits_scenes()
    try:
        names = get_scenes_of_split(split, dataset)
    except ValueError as error:
        raise ValueError(
            f"there is no split {split!r}; there are {', '.join(known)}, and those of a splits.json beside the tables"
        ) from error
    there = {record["name"] for record in dataset.scene}
    found = [name for name in names if name in there]
    if not found:
        others = [other for other, scenes in known.items() if there & set(scenes)]
        raise ValueError(
            f"{dataset.version} has no scene of the split {split!r}; it has scenes of {', '.join(others) or 'none'}"
        )
    return found


def stamp_ns(record: dict[str, Any]) -> int:
    return record["timestamp"] * MICROSECOND


def pose_matrix(record: dict[str, Any]) -> NDArray[np.float64]:
    """(4, 4): global from ego of an ego_pose, ego from sensor of a calibrated_sensor."""
    w, x, y, z = record["rotation"]
    return geometry.transform(record["translation"], (x, y, z, w))


def sensor_pose(dataset: NuScenes, record: dict[str, Any]) -> NDArray[np.float64]:
    """(4, 4) global from sensor, at the own time of a sample_data."""
    ego_from_sensor = pose_matrix(dataset.get("calibrated_sensor", record["calibrated_sensor_token"]))
    return pose_matrix(dataset.get("ego_pose", record["ego_pose_token"])) @ ego_from_sensor


def sample_pose(dataset: NuScenes, sample: dict[str, Any]) -> NDArray[np.float64]:
    """(4, 4) global from ego at the sample's lidar sweep, from where the benchmark counts distances."""
    sweep = dataset.get("sample_data", sample["data"]["LIDAR_TOP"])
    return pose_matrix(dataset.get("ego_pose", sweep["ego_pose_token"]))


def sample_annotations(dataset: NuScenes, sample: dict[str, Any]) -> Annotations:
    """The objects of the ten classes that at least one lidar or radar point shows, as the benchmark counts them."""
    rows = [dataset.get("sample_annotation", token) for token in sample["anns"]]
    rows = [row for row in rows if category_to_detection_name(row["category_name"]) is not None]
    rows = [row for row in rows if row["num_lidar_pts"] + row["num_radar_pts"] > 0]
    count = len(rows)
    poses = [pose_matrix(row) for row in rows]
    velocities = np.array([dataset.box_velocity(row["token"])[:2] for row in rows]).reshape(count, 2)
    boxes = Detections3D(
        stamp_ns(sample),
        centers=np.array([pose[:3, 3] for pose in poses]).reshape(count, 3),
        sizes=np.array([row["size"] for row in rows]).reshape(count, 3)[:, [1, 0, 2]],
        yaws=np.array([geometry.yaw_of(pose) for pose in poses]),
        velocities=np.nan_to_num(velocities),
        scores=np.ones(count),
        labels=np.array([CLASS_ID[category_to_detection_name(row["category_name"])] for row in rows], np.int64),
        attributes=np.array([_attribute(dataset, row) for row in rows], np.int64),
        from_proposal=np.zeros(count, np.bool_),
    )
    return Annotations(
        boxes.transformed(geometry.invert(sample_pose(dataset, sample))),
        ~np.isnan(velocities).any(axis=1),
        tuple(row["instance_token"] for row in rows),
        np.array([int(row["visibility_token"]) for row in rows], np.int64),
    )


def _attribute(dataset: NuScenes, row: dict[str, Any]) -> int:
    tokens = row["attribute_tokens"]
    return ATTRIBUTE_ID[dataset.get("attribute", tokens[0])["name"]] if tokens else NO_ATTRIBUTE
