"""check-rig: nothing to say about a good rig, and what is wrong with bad ones."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 and rosbags: source .venv/bin/ros-activate")

import cv2
import six_camera_rig_b

from bevformer_ros.commands.cli import main
from bevformer_ros.config import BevFrameConfig, RigConfig, load_yaml
from bevformer_ros.model.config import BevGridConfig
from bevformer_ros.resources import DEFAULT_RIG, config_file
from bevformer_ros.ros.bag.rig_inspection import inspect_rig
from bevformer_ros.ros.bag.simulated_drive import simulate
from bevformer_ros.ros.topics import TRUTH, BoxTopics
from bevformer_ros.simulation.drive import Drive

RIG = load_yaml(RigConfig, config_file("rigs", DEFAULT_RIG))
RANGE = BevGridConfig().range


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    path = tmp_path_factory.mktemp("inspected") / "drive"
    simulate(path, RIG, Drive(seed=9000, seconds=0.5, rate=4.0, size=(160, 90)))
    return path


def test_a_good_rig(drive):
    found = inspect_rig(RIG, drive, TRUTH, RANGE, None)
    assert found.problems == ()
    assert len(found.boxes) > 0
    assert "CAM_BACK heading" in found.description


def test_a_bag_without_truth(drive):
    found = inspect_rig(RIG, drive, BoxTopics("/nothing", "/nothing"), RANGE, 0.0)
    assert len(found.boxes) == 0
    assert all(found.frame.cameras)


def with_first(**changes):
    return replace(RIG, cameras=(replace(RIG.cameras[0], **changes), *RIG.cameras[1:]))


def exchanged(rig):
    first, *rest, last = rig.cameras
    swapped = (replace(first, name=last.name, model_camera=first.name), *rest, replace(last, name=first.name))
    return replace(rig, cameras=swapped)


@pytest.mark.parametrize(
    ("spoilt", "problems"),
    [
        (
            replace(RIG, bev_frame=BevFrameConfig((0, 0, 1.84), (0, 0, 0))),
            ["forward of the base frame .* lies -90° to the left of the BEV frame's"],
        ),
        (
            replace(RIG, bev_frame=BevFrameConfig((0.94, 0, 4.84), (0, 0, -np.pi / 2))),
            [f"{camera.name}: -1.[45]. m above the road; is the z of bev_frame right" for camera in RIG.cameras],
        ),
        (
            replace(RIG, cameras=(*RIG.cameras[:-1], replace(RIG.cameras[-1], exposure_offset_ms=90.0))),
            ["CAM_BACK_RIGHT: no image near its expected stamp"],
        ),
        (
            with_first(model_camera="CAM_BACK"),
            ["CAM_FRONT: looks .0° to the left of forward; is it a CAM_BACK"],
        ),
        (
            with_first(crop=(0, 0, 1600, 900)),
            ["CAM_FRONT: image of 160 x 90 pixels, but the rig's `crop` reaches to 1600, 900"],
        ),
        (
            with_first(masks=(((0.0, 0.0), (200.0, 0.0), (0.0, 90.0)),)),
            ["CAM_FRONT: image of 160 x 90 pixels, but the rig's `masks` reach to 200, 0"],
        ),
        (exchanged(RIG), ["CAM_BACK_RIGHT: looks .0° to the left of forward", "CAM_FRONT: looks -111° to the left"]),
    ],
    ids=[
        "bev frame turned",
        "bev frame in the air",
        "wrong offset",
        "wrong model_camera",
        "crop",
        "masks",
        "cameras exchanged",
    ],
)
def test_what_is_implausible(drive, spoilt, problems):
    found = inspect_rig(spoilt, drive, TRUTH, RANGE, None).problems
    assert len(found) == len(problems)
    for text, pattern in zip(found, problems, strict=True):
        assert re.match(pattern, text), text


def test_no_usable_image_at_all(drive):
    too_wide = replace(RIG, cameras=tuple(replace(camera, crop=(0, 0, 161, 90)) for camera in RIG.cameras))
    with pytest.raises(ValueError, match="has no usable image about .*: CAM_FRONT: image of 160 x 90 pixels, but"):
        inspect_rig(too_wide, drive, TRUTH, RANGE, None)


def test_frames_that_tf_does_not_have(drive):
    with pytest.raises(ValueError, match="do the frames of the rig have these names in tf"):
        inspect_rig(replace(RIG, fixed_frame="world"), drive, TRUTH, RANGE, None)


def test_a_picture_of_another_car(shared_directory, tmp_path, capsys):
    six_camera_rig_b.write_bag(shared_directory / "data" / "six_camera_rig_b", tmp_path / "drive")
    assert main(["make-rig", str(tmp_path / "drive"), "-o", str(tmp_path / "rig.yaml")]) == 0
    picture = tmp_path / "rig.png"
    words = ["check-rig", str(tmp_path / "rig.yaml"), str(tmp_path / "drive"), "-o", str(picture), "--width", "200"]
    assert main(words) == 0
    assert "nothing implausible" in capsys.readouterr().out
    assert cv2.imread(str(picture)).shape[1] > 600
