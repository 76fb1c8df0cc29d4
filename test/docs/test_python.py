"""What docs/python.md and the README show in Python runs, one block after the other, in a folder with its data."""

from __future__ import annotations

import re

import pytest
from support import REPOSITORY

pytest.importorskip("rosbags", reason="reads a bag")
pytest.importorskip("nuscenes", reason="needs nuscenes-devkit, which `make env` installs")

from miniature_nuscenes import SPLIT, VERSION, write_miniature

from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.resources import DEFAULT_RIG, config_file
from bevformer_ros.ros.bag.simulated_drive import simulate
from bevformer_ros.simulation.drive import Drive, observations

BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
DRIVE = Drive(seed=9001, seconds=1.0, rate=2.0, size=(400, 225))


def blocks_of(page):
    return BLOCK.findall((REPOSITORY / page).read_text(encoding="utf-8"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    simulate(tmp_path / "out" / "drive", load_yaml(RigConfig, config_file("rigs", DEFAULT_RIG)), DRIVE)
    write_miniature(tmp_path / "data" / "nuscenes")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def given():
    """What a reader is said to have."""
    frame = next(iter(observations([DRIVE]))).frame
    cameras = {camera.name: camera for camera in frame.cameras}
    return {
        "frame": frame,
        "stamp_ns": frame.stamp_ns,
        "images": {name: camera.image for name, camera in cameras.items()},
        "intrinsics": {name: camera.intrinsics for name, camera in cameras.items()},
        "camera_from_bev": {name: camera.camera_from_bev for name, camera in cameras.items()},
        "world_from_bev": frame.world_from_bev,
    }


def test_names_of_the_miniature_are_those_of_the_page():
    text = "".join(blocks_of("docs/python.md"))
    assert f'"{VERSION}"' in text and f'"{SPLIT}"' in text


@pytest.mark.parametrize(("page", "least"), [("docs/python.md", 5), ("README.md", 1)])
def test_blocks_run(page, least, folder, given):
    blocks = blocks_of(page)
    assert len(blocks) >= least
    names = dict(given)
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    assert len(names["boxes" if page == "docs/python.md" else "detections"])
