"""Boxes and truth of an evaluation as a file of plain arrays (npz), to compare runs long after they ended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bevformer_ros.evaluation.protocol import EvaluationSample
from bevformer_ros.types import Detections3D
from bevformer_ros.unfinished import written_whole

_FIELDS = ("centers", "sizes", "yaws", "velocities", "scores", "labels", "attributes", "from_proposal")
_SIDES = ("detections", "truth")


def write_samples(path: Path, samples: Sequence[EvaluationSample]) -> None:
    """Without object_ids and visibility. Raises ValueError where there are no samples."""
    if not samples:
        raise ValueError(f"{path}: there are no samples to write")
    arrays: dict[str, Any] = {
        "tokens": np.array([sample.token for sample in samples]),
        "stamps_ns": np.array([sample.truth.stamp_ns for sample in samples]),
        "velocity_known": np.concatenate([sample.velocity_known for sample in samples]),
    }
    for side in _SIDES:
        boxes = [getattr(sample, side) for sample in samples]
        arrays[f"{side}_count"] = np.array([len(entry) for entry in boxes])
        for name in _FIELDS:
            arrays[f"{side}_{name}"] = np.concatenate([getattr(entry, name) for entry in boxes])
    with written_whole(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_samples(path: Path) -> list[EvaluationSample]:
    """In the order in which they were written."""
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    ends = {side: np.cumsum(arrays[f"{side}_count"]) for side in _SIDES}
    samples = []
    for row, (token, stamp_ns) in enumerate(zip(arrays["tokens"], arrays["stamps_ns"], strict=True)):
        rows = {side: slice(ends[side][row] - arrays[f"{side}_count"][row], ends[side][row]) for side in _SIDES}
        found, true = (
            Detections3D(int(stamp_ns), **{name: arrays[f"{side}_{name}"][rows[side]] for name in _FIELDS})
            for side in _SIDES
        )
        samples.append(EvaluationSample(str(token), found, true, arrays["velocity_known"][rows["truth"]]))
    return samples
