"""docs/rig.md names every key of a rig."""

from __future__ import annotations

from dataclasses import fields

import pytest
from support import REPOSITORY

from bevformer_ros.config import BevFrameConfig, CameraConfig, RigConfig

PAGE = (REPOSITORY / "docs" / "rig.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("key", [entry.name for kind in (CameraConfig, RigConfig) for entry in fields(kind)])
def test_keys_of_cameras_and_rig(key):
    assert f"`{key}`" in PAGE


@pytest.mark.parametrize("key", [entry.name for entry in fields(BevFrameConfig)])
def test_keys_of_the_bev_frame(key):
    assert f"`bev_frame.{key}`" in PAGE
