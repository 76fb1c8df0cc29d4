"""The same drive through rigs that describe it otherwise: another order, fewer cameras, one that is slow."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy", reason="needs ROS 2 and rosbags: source .venv/bin/ros-activate")

from support import SMALLEST

from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.resources import DEFAULT_RIG, config_file
from bevformer_ros.ros.bag.files import BagReader, BagWriter, deserialize
from bevformer_ros.ros.bag.replay_tasks import Task
from bevformer_ros.ros.bag.replay_tasks import replay as replay_task
from bevformer_ros.ros.bag.simulated_drive import simulate
from bevformer_ros.ros.conversions import detections_from_messages
from bevformer_ros.ros.node.settings import Settings
from bevformer_ros.ros.topics import OUTPUT, OUTPUT_STATUS
from bevformer_ros.simulation.drive import Drive

DRIVE = Drive(seed=3, seconds=1.5, rate=4.0, size=(160, 90))
RIG = load_yaml(RigConfig, config_file("rigs", DEFAULT_RIG))


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    path = tmp_path_factory.mktemp("rigs") / "drive"
    simulate(path, RIG, DRIVE)
    return path


def replayed(bag, folder, rig):
    """Boxes and statuses of all sets."""
    folder.mkdir()
    plain = yaml.safe_load(yaml.safe_dump(_lists(asdict(rig))))
    (folder / "rig.yaml").write_text(yaml.safe_dump(plain))
    settings = Settings(rig=str(folder / "rig.yaml"), model=str(SMALLEST), device="cpu", score_threshold=0.0)
    for _ in replay_task(Task(bag, folder / "out", settings)):
        pass
    with BagReader(folder / "out") as result:
        boxes = [detections_from_messages(deserialize(entry)) for entry in result.messages([OUTPUT.boxes])]
        return boxes, [deserialize(entry) for entry in result.messages([OUTPUT_STATUS])]


def _lists(value):
    if isinstance(value, dict):
        return {key: _lists(entry) for key, entry in value.items()}
    return list(map(_lists, value)) if isinstance(value, tuple) else value


def assert_same(first, second):
    assert len(first) == len(second) == len(DRIVE.reference_stamps)
    for one, two in zip(first, second, strict=True):
        for name in ("centers", "sizes", "scores"):
            np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=1e-3, atol=1e-3, err_msg=name)
        assert np.array_equal(one.labels, two.labels)


def test_another_order_changes_the_order_of_names_alone(drive, tmp_path):
    boxes, statuses = replayed(drive, tmp_path / "usual", RIG)
    turned, of_turned = replayed(drive, tmp_path / "turned", replace(RIG, cameras=RIG.cameras[::-1]))
    assert_same(boxes, turned)
    names = [camera.name for camera in RIG.cameras]
    assert {tuple(status.cameras_used) for status in statuses} == {tuple(names)}
    assert {tuple(status.cameras_used) for status in of_turned} == {tuple(names[::-1])}


def test_cameras_that_the_rig_does_not_name_are_not_missed(drive, tmp_path):
    five = replace(RIG, cameras=RIG.cameras[:5])
    boxes, statuses = replayed(drive, tmp_path / "five", five)
    assert len(boxes) == len(DRIVE.reference_stamps)
    assert {(len(status.cameras_used), len(status.cameras_missing)) for status in statuses} == {(5, 0)}


def test_a_slow_camera_repeats_where_the_rig_says_so(drive, tmp_path):
    slow = RIG.cameras[5]
    with BagReader(drive) as whole, BagWriter(tmp_path / "halved") as halved:
        count = 0
        for entry in whole.messages():
            count += entry.topic == slow.image_topic
            if entry.topic != slow.image_topic or count % 2:
                halved.write_raw(entry.topic, entry.type_name, entry.data, entry.stamp_ns)
    boxes, _ = replayed(tmp_path / "halved", tmp_path / "once", RIG)
    assert len(boxes) == len(DRIVE.reference_stamps) / 2
    repeating = replace(RIG, cameras=(*RIG.cameras[:5], replace(slow, repeat_ms=300.0)))
    boxes, statuses = replayed(tmp_path / "halved", tmp_path / "again", repeating)
    assert len(boxes) == len(DRIVE.reference_stamps)
    assert {len(status.cameras_used) for status in statuses} == {6}
    fresh, repeated = 35 + 8, 35 - (15 - 250)  # ms, from the newest image to the oldest
    assert {round(status.skew_ms) for status in statuses} == {fresh, repeated}
