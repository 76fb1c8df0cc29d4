"""A data set in nuScenes format, made of the simulated world: two scenes of a few samples, small images."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bevformer_ros import geometry
from bevformer_ros.simulation.render import render
from bevformer_ros.simulation.rig import BASE_FROM_LIDAR, surround_rig
from bevformer_ros.simulation.world import START_NS, World
from bevformer_ros.taxonomy import ATTRIBUTE_NAMES, CLASS_NAMES, NO_ATTRIBUTE

VERSION, SPLIT = "v1.0-mini", "mini_val"
SCENES = ("scene-0103", "scene-0916")  # the split's
SWEEP_RATE, SWEEPS_PER_SAMPLE = 12, 6
ANNOTATION_RANGE = 70.0
_SIZE = (160, 90)
_TABLES = (
    *("category", "attribute", "visibility", "instance", "sensor", "calibrated_sensor", "ego_pose", "log", "scene"),
    *("sample", "sample_data", "sample_annotation", "map"),
)
_CATEGORIES = {
    "barrier": "movable_object.barrier",
    "bicycle": "vehicle.bicycle",
    "bus": "vehicle.bus.rigid",
    "car": "vehicle.car",
    "construction_vehicle": "vehicle.construction",
    "motorcycle": "vehicle.motorcycle",
    "pedestrian": "human.pedestrian.adult",
    "traffic_cone": "movable_object.trafficcone",
    "trailer": "vehicle.trailer",
    "truck": "vehicle.truck",
}


def lists() -> defaultdict[str, list[dict[str, Any]]]:
    return defaultdict(list)


@dataclass
class _Tables:
    root: Path
    rows: defaultdict[str, list[dict[str, Any]]] = field(default_factory=lists)

    def add(self, table: str, token: str, **row: Any) -> str:
        self.rows[table].append({"token": token, **row})
        return token


def write_miniature(root: Path, samples: int = 3, with_images: bool = True) -> Path:
    """The data set's root. Objects beyond 45 m of the ego have no lidar points, as distant ones often have."""
    tables = _Tables(root)
    for name in (*_CATEGORIES.values(), "animal"):
        tables.add("category", f"category-{name}", name=name, description="")
    for name in ATTRIBUTE_NAMES:
        tables.add("attribute", f"attribute-{name}", name=name, description="")
    tables.add("visibility", "4", level="v80-100", description="")
    (root / "maps").mkdir(parents=True)
    cv2.imwrite(str(root / "maps" / "map.png"), np.zeros((1, 1), np.uint8))
    tables.add("log", "log", logfile="", vehicle="", date_captured="", location="")
    tables.add("map", "map", category="semantic_prior", filename="maps/map.png", log_tokens=["log"])
    for index, name in enumerate(SCENES):
        _write_scene(
            tables, name, seed=index, first_ns=START_NS + index * 60_000_000_000, samples=samples, draw=with_images
        )
    folder = root / VERSION
    folder.mkdir()
    for table in _TABLES:
        (folder / f"{table}.json").write_text(json.dumps(tables.rows[table]), encoding="utf-8")
    return root


def _write_scene(tables: _Tables, name: str, seed: int, first_ns: int, samples: int, draw: bool) -> None:
    """first_ns: where the scene lies in time; the world's own time begins at START_NS."""
    shift = first_ns - START_NS
    world = World.make(seed, samples / 2 + 2)
    tokens = [f"{name}-sample-{index}" for index in range(samples)]
    tables.add(
        "scene",
        f"{name}-scene",
        name=name,
        log_token="log",
        nbr_samples=samples,
        description="",
        first_sample_token=tokens[0],
        last_sample_token=tokens[-1],
    )
    stamps = [START_NS + 500_000_000 + index * 500_000_000 for index in range(samples)]
    for index, (token, stamp) in enumerate(zip(tokens, stamps, strict=True)):
        tables.add(
            "sample",
            token,
            scene_token=f"{name}-scene",
            timestamp=(stamp + shift) // 1000,
            prev=tokens[index - 1] if index else "",
            next=tokens[index + 1] if index + 1 < samples else "",
        )
    _write_sensor(tables, name, "LIDAR_TOP", "lidar", BASE_FROM_LIDAR, [])
    for token, stamp in zip(tokens, stamps, strict=True):
        _write_data(tables, world, name, "LIDAR_TOP", token, stamp, shift, True, "LIDAR_TOP.pcd.bin", (0, 0))
    for camera in surround_rig(*_SIZE):
        _write_sensor(tables, name, camera.name, "camera", camera.base_from_camera, camera.intrinsics.tolist())
        for sweep in range((samples - 1) * SWEEPS_PER_SAMPLE + 1):
            stamp = START_NS + 500_000_000 + round(sweep * 1e6 / SWEEP_RATE) * 1000 + camera.exposure_offset_ns
            sample, key = tokens[-(-sweep // SWEEPS_PER_SAMPLE)], sweep % SWEEPS_PER_SAMPLE == 0
            file = f"{'samples' if key else 'sweeps'}/{camera.name}/{name}__{sweep}.jpg"
            _write_data(tables, world, name, camera.name, sample, stamp, shift, key, file, _SIZE)
            if draw:
                path = tables.root / file
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), render(world, camera, stamp).image)
    _write_annotations(tables, world, name, tokens, stamps)


def _write_sensor(tables, scene, channel, modality, base_from_sensor, intrinsics) -> None:
    if not any(row["channel"] == channel for row in tables.rows["sensor"]):
        tables.add("sensor", f"sensor-{channel}", channel=channel, modality=modality)
    tables.add(
        "calibrated_sensor",
        f"{scene}-{channel}",
        sensor_token=f"sensor-{channel}",
        camera_intrinsic=intrinsics,
        **_pose(base_from_sensor),
    )


def _write_data(tables, world, scene, channel, sample, stamp, shift, key, file, size) -> None:
    pose = _pose(world.world_from_base(stamp))
    token = f"{scene}-{channel}-{stamp}"
    tables.add("ego_pose", f"pose-{token}", timestamp=(stamp + shift) // 1000, **pose)
    tables.add(
        "sample_data",
        token,
        sample_token=sample,
        ego_pose_token=f"pose-{token}",
        filename=file,
        calibrated_sensor_token=f"{scene}-{channel}",
        timestamp=(stamp + shift) // 1000,
        is_key_frame=key,
        fileformat=file.rpartition(".")[2],
        width=size[0],
        height=size[1],
        prev="",
        next="",
    )


def _write_annotations(tables, world, scene, samples, stamps) -> None:
    last: dict[int, dict[str, Any]] = {}
    lonely = None
    for sample, stamp in zip(samples, stamps, strict=True):
        boxes, ego = world.objects_at(stamp), world.world_from_base(stamp)[:3, 3]
        distances = np.linalg.norm(boxes.centers[:, :2] - ego[:2], axis=1)
        if lonely is None:
            lonely = np.argmin(distances)  # seen but once, so that its velocity is not known
        else:
            distances[lonely] = np.inf
        for row in np.flatnonzero(distances < ANNOTATION_RANGE):
            token = f"{sample}-{row}"
            label = CLASS_NAMES[boxes.labels[row]]
            attribute = boxes.attributes[row]
            length, width, height = boxes.sizes[row].tolist()
            pose = geometry.transform_from_rpy(boxes.centers[row], (0.0, 0.0, boxes.yaws[row]))
            tables.add(
                "sample_annotation",
                token,
                sample_token=sample,
                instance_token=f"{scene}-instance-{row}",
                visibility_token="4",
                size=[width, length, height],
                prev=last[row]["token"] if row in last else "",
                next="",
                num_lidar_pts=int(distances[row] < 45.0),
                num_radar_pts=0,
                **_pose(pose),
                attribute_tokens=[] if attribute == NO_ATTRIBUTE else [f"attribute-{ATTRIBUTE_NAMES[attribute]}"],
            )
            if row in last:
                last[row]["next"] = token
            else:
                tables.add("instance", f"{scene}-instance-{row}", category_token=f"category-{_CATEGORIES[label]}")
            last[row] = tables.rows["sample_annotation"][-1]


def _pose(target_from_source) -> dict[str, list[float]]:
    x, y, z, w = geometry.quaternion_xyzw(target_from_source).tolist()
    return {"translation": target_from_source[:3, 3].tolist(), "rotation": [w, x, y, z]}
