"""Tracks over a recorded drive of which sets are lost: the replay's own way, but for the detector, which sees all."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

pytest.importorskip("vision_msgs.msg", reason="needs the ROS environment that `make test` makes")

from bevformer_ros import geometry
from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.inference.frame_history import HistoryStatus
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.resources import DEFAULT_RIG, config_file
from bevformer_ros.ros.bag.files import BagReader, BagWriter
from bevformer_ros.ros.bag.replay import BagReplay
from bevformer_ros.ros.bag.results import StampedBoxes, read_boxes
from bevformer_ros.ros.bag.simulated_drive import simulate
from bevformer_ros.ros.node.settings import Settings
from bevformer_ros.ros.topics import OUTPUT_TRACKS, TRUTH
from bevformer_ros.simulation.drive import Drive
from bevformer_ros.simulation.rig import BASE_FROM_LIDAR

RIG = load_yaml(RigConfig, config_file("rigs", DEFAULT_RIG))
DRIVE = Drive(seed=9001, seconds=4.0, rate=10.0, size=(160, 90))
BEV_FROM_BASE = geometry.invert(BASE_FROM_LIDAR)


class IdealDetector:
    """Finds what the bag calls visible at a frame's stamp."""

    config = load_yaml(ModelConfig, config_file("models", "tiny"))
    trained = True
    recommended_score_thresholds = None
    error_model = None
    latencies_ms: dict[str, float] = {}  # noqa: RUF012 (none)
    history = HistoryStatus(depth=0, slots=0, bytes=0, resets={})

    def __init__(self, truth: dict[int, StampedBoxes]) -> None:
        self._truth = truth

    def replay(self, frames):
        for frame in frames:
            yield self._truth[frame.stamp_ns].boxes.transformed(BEV_FROM_BASE)


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    path = tmp_path_factory.mktemp("tracks") / "drive"
    simulate(path, RIG, DRIVE)
    return path


def without_sets(source, target, kept: NDArray[np.bool_]):
    """A copy of a bag that lacks the images of some sets."""
    images, counts = {camera.image_topic for camera in RIG.cameras}, Counter[str]()
    with BagReader(source) as old, BagWriter(target) as new:
        for name, topic in old.topics.items():
            new.add_topic(name, topic.type_name, latched=topic.latched)
        for message in old.messages():
            if message.topic in images:
                counts[message.topic] += 1
                if not kept[counts[message.topic] - 1]:
                    continue
            new.write_raw(message.topic, message.type_name, message.data, message.stamp_ns)
    return target


def ids_of_objects(truth: StampedBoxes, tracks: StampedBoxes) -> dict[str, str]:
    """Track ids by object, by place and class; tracks of hidden objects are left over."""
    apart = np.linalg.norm(truth.boxes.centers[:, None] - tracks.boxes.centers[None], axis=-1)
    apart[truth.boxes.labels[:, None] != tracks.boxes.labels[None]] = 1000
    rows, columns = linear_sum_assignment(apart)
    assert len(rows) == len(truth.ids) and apart[rows, columns].max() < 1.5
    return {truth.ids[row]: tracks.ids[column] for row, column in zip(rows, columns, strict=True)}


@pytest.mark.parametrize("dropped", [0.0, 0.2])
def test_objects_that_stay_in_sight_keep_their_ids(drive, tmp_path, dropped):
    kept = np.random.default_rng(0).random(len(DRIVE.reference_stamps)) >= dropped
    bag = without_sets(drive, tmp_path / "lossy", kept)
    with BagReader(bag) as reader, BagWriter(tmp_path / "out") as result:
        truth = read_boxes(reader, TRUTH)
        for _ in BagReplay(reader, RIG, Settings(tracking=True), IdealDetector(truth), result.write).run():
            pass
    with BagReader(tmp_path / "out") as reader:
        tracks = read_boxes(reader, OUTPUT_TRACKS)
    assert list(tracks) == [stamp for stamp, whole in zip(DRIVE.reference_stamps, kept, strict=True) if whole]

    last, in_sight, followed = dict[str, str](), set[str](), 0
    for stamp_ns in DRIVE.reference_stamps:
        in_sight &= set(truth[stamp_ns].ids)
        if stamp_ns not in tracks:
            continue
        ids = ids_of_objects(truth[stamp_ns], tracks[stamp_ns])
        assert {entry: ids[entry] for entry in in_sight} == {entry: last[entry] for entry in in_sight}
        followed += len(in_sight)
        last, in_sight = ids, set(ids)
    assert followed > 1000
