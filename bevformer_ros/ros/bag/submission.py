"""Results on nuScenes scenes as a file for the benchmark's server, or for its devkit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from nuscenes import NuScenes

from bevformer_ros.config import RigConfig
from bevformer_ros.datasets.nuscenes_tables import samples_of_scene, stamp_ns
from bevformer_ros.evaluation.submission_file import SampleResult
from bevformer_ros.ros.bag.files import BagReader
from bevformer_ros.ros.bag.results import EgoFrame, nearest_stamp, read_boxes
from bevformer_ros.ros.bag.scene import transforms_of
from bevformer_ros.ros.topics import OUTPUT


def results_of(pairs: Iterable[tuple[Path, Path]], rig: RigConfig, stamps: dict[str, int]) -> dict[str, SampleResult]:
    """By sample token, from result bags and the drives' bags that nuscenes-to-bag made. stamps: of the samples."""
    found = {}
    for result, drive in pairs:
        with BagReader(result) as results, BagReader(drive) as driven:
            boxes, ego = read_boxes(results, OUTPUT), EgoFrame(transforms_of(driven), rig)
        known = np.array(sorted(boxes), np.int64)
        for token, stamp in stamps.items():
            nearest = nearest_stamp(known, stamp)
            if nearest is not None:
                found[token] = SampleResult(ego.boxes(boxes[nearest], nearest), ego.pose(nearest))
    return found


def stamps_of(dataset: NuScenes, scenes: Sequence[str]) -> dict[str, int]:
    """Of all samples of some scenes, or of the data set where none are named."""
    samples = [sample for scene in scenes for sample in samples_of_scene(dataset, scene)] if scenes else dataset.sample
    return {sample["token"]: stamp_ns(sample) for sample in samples}
