"""Drives on disk: what is written comes back, and nothing else is ever run or believed."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drives import labelled_frame

from bevformer_ros.training.drive_file import read_drive, write_drive


def test_a_drive_without_frames(tmp_path: Path) -> None:
    write_drive(tmp_path / "empty.npz", [])
    assert read_drive(tmp_path / "empty.npz", 0, 5) == []


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    frames = [labelled_frame(index) for index in range(3)]
    write_drive(tmp_path / "drive.npz", frames)
    read = read_drive(tmp_path / "drive.npz", 1, 5)
    assert len(read) == 2
    for found, expected in zip(read, frames[1:], strict=True):
        assert (found.frame.stamp_ns, found.frame.scene) == (expected.frame.stamp_ns, expected.frame.scene)
        assert np.array_equal(found.frame.world_from_bev, expected.frame.world_from_bev)
        assert np.array_equal(found.truth.corners(), expected.truth.corners())
        assert np.array_equal(found.truth.attributes, expected.truth.attributes)
        assert np.array_equal(found.visible, expected.visible)
        assert np.array_equal(found.velocity_known, expected.velocity_known)
        for one, two in zip(found.frame.cameras, expected.frame.cameras, strict=True):
            assert one is not None and two is not None
            assert (one.name, one.stamp_ns) == (two.name, two.stamp_ns)
            assert np.array_equal(one.image, two.image)
            assert np.array_equal(one.camera_from_bev, two.camera_from_bev)


def test_no_half_drive_is_left(tmp_path: Path) -> None:
    write_drive(tmp_path / "drive.npz", [labelled_frame()])
    assert [path.name for path in tmp_path.iterdir()] == ["drive.npz"]


def test_a_missing_camera_is_refused(tmp_path: Path) -> None:
    labelled = labelled_frame()
    frame = replace(labelled.frame, cameras=(labelled.frame.cameras[0], None))
    with pytest.raises(ValueError, match="camera is missing"):
        write_drive(tmp_path / "drive.npz", [replace(labelled, frame=frame)])


class Trap:
    def __reduce__(self) -> tuple:
        return (pytest.fail, ("a file ran code when it was opened",))


@pytest.mark.parametrize("content", ["nothing", "text", "a pickle", "an array of objects"])
def test_what_is_no_drive_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "drive.npz"
    if content == "an array of objects":
        with path.open("wb") as file:
            np.savez(file, count=np.array([Trap()], dtype=object))
    else:
        path.write_bytes({"nothing": b"", "text": b"no drive", "a pickle": pickle.dumps(Trap())}[content])
    with pytest.raises(ValueError, match="drive.npz: not a readable drive, remove it"):
        read_drive(path, 0, 1)
