"""Labelled drives as files of plain arrays (npz): opening one never runs code that came with it.

For drives in which every camera has an image without distortion, as those of the simulated world.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bevformer_ros.training.labelled_frame import LabelledFrame
from bevformer_ros.types import CameraImage, Detections3D, SurroundFrame

_TRUTH = ("centers", "sizes", "yaws", "velocities", "scores", "labels", "attributes", "from_proposal")
_CAMERA = ("name", "stamp_ns", "image", "intrinsics", "camera_from_bev")


def write_drive(path: Path, frames: Sequence[LabelledFrame]) -> None:
    """Under another name at first, so that nobody ever reads half a drive. Raises ValueError for other drives."""
    arrays = {
        f"{index}/{name}": values for index, labelled in enumerate(frames) for name, values in _arrays(labelled).items()
    }
    unfinished = path.with_suffix(f".{os.getpid()}")
    with unfinished.open("wb") as file:
        np.savez(file, count=np.array(len(frames)), **arrays)  # type: ignore[arg-type]
    unfinished.replace(path)


def read_drive(path: Path, first: int, count: int) -> list[LabelledFrame]:
    """The frames from an index on, as many as there are. Raises ValueError for a file that is no drive."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            indices = range(first, min(first + count, int(arrays["count"])))
            return [_labelled(_OfFrame(arrays, index)) for index in indices]
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a readable drive, remove it to have it made again: {error}") from error


class _OfFrame:
    """The arrays of one frame, read when they are asked for."""

    def __init__(self, arrays: Any, index: int) -> None:
        self._arrays, self._index = arrays, index

    def __getitem__(self, name: str) -> NDArray[Any]:
        values: NDArray[Any] = self._arrays[f"{self._index}/{name}"]
        return values


def _arrays(labelled: LabelledFrame) -> dict[str, NDArray[Any]]:
    frame = labelled.frame
    cameras = [camera for camera in frame.cameras if camera is not None and camera.is_rectified]
    if len(cameras) != len(frame.cameras):
        raise ValueError(f"{frame.scene}: a camera is missing or has a distortion, such a drive cannot be kept")
    return {
        "stamp_ns": np.array(frame.stamp_ns),
        "world_from_bev": frame.world_from_bev,
        "scene": np.array(frame.scene),
        "velocity_known": labelled.velocity_known,
        "visible": labelled.visible,
        **{f"camera_{name}": np.array([getattr(camera, name) for camera in cameras]) for name in _CAMERA},
        **{f"truth_{name}": getattr(labelled.truth, name) for name in _TRUTH},
    }


def _labelled(arrays: _OfFrame) -> LabelledFrame:
    stamp_ns = int(arrays["stamp_ns"])
    columns = (arrays[f"camera_{name}"] for name in _CAMERA)
    cameras = tuple(
        CameraImage(str(name), int(camera_stamp_ns), image, intrinsics, camera_from_bev)
        for name, camera_stamp_ns, image, intrinsics, camera_from_bev in zip(*columns, strict=True)
    )
    truth_fields: dict[str, Any] = {name: arrays[f"truth_{name}"] for name in _TRUTH}
    truth = Detections3D(stamp_ns, **truth_fields)
    frame = SurroundFrame(stamp_ns, cameras, arrays["world_from_bev"], str(arrays["scene"]))
    return LabelledFrame(frame, truth, arrays["velocity_known"], arrays["visible"])
