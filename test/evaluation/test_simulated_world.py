"""A detector on the world, with stand-ins that know the truth, so that the scores are known beforehand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nuscenes", reason="needs nuscenes-devkit, which `make env` installs")

from bevformer_ros.evaluation.simulated_world import KEYFRAME_RATE, evaluate_world
from bevformer_ros.inference.pipeline import load_detector
from bevformer_ros.model.config import NUSCENES_CAMERAS
from bevformer_ros.resources import model_file
from bevformer_ros.simulation.drive import Drive, observations
from bevformer_ros.simulation.seeds import EVALUATION_SEEDS
from bevformer_ros.types import Detections3D

DRIVES = [Drive(seed, seconds=1.5, rate=2.0, size=(160, 90)) for seed in (9000, 9001)]


@dataclass
class Oracle:
    """Finds what the truth has; of the perspective head, 0.6 m beside it. late: results come only at the
    end."""

    truths: dict[tuple[str, int], Detections3D]
    late: bool = False
    makes_proposals: bool = True
    cameras: tuple[str, ...] = NUSCENES_CAMERAS
    resets: int = 0

    @property
    def config(self) -> SimpleNamespace:
        proposals = "some" if self.makes_proposals else None
        return SimpleNamespace(name="oracle", cameras=self.cameras, proposals=proposals)

    def reset(self) -> None:
        self.resets += 1

    def replay(self, frames: Iterable[Any]) -> Iterator[Detections3D]:
        if self.late:
            frames = list(frames)
        for frame in frames:
            assert tuple(camera.name for camera in frame.cameras) == self.cameras
            truth = self.truths[frame.scene, frame.stamp_ns]
            # Across the line of sight: along it, objects would leave the range in which their class counts.
            across = truth.centers[:, [1, 0, 2]] * (-1, 1, 0)
            across *= 0.6 / np.linalg.norm(across, axis=1, keepdims=True)
            beside = replace(truth, centers=truth.centers + across)
            yield replace(truth, proposals=beside)


@pytest.fixture(scope="module")
def truths():
    return {(entry.frame.scene, entry.frame.stamp_ns): entry.truth for entry in observations(DRIVES)}


def present(scores):
    found = [entry for entry in scores.classes.values() if entry.truths]
    assert len(found) > 4
    return found


def test_no_drives():
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate_world(Oracle({}), [])


@pytest.mark.parametrize("late", [False, True])
def test_the_truth_itself_is_perfect(truths, late):
    oracle = Oracle(truths, late)
    scores = evaluate_world(oracle, DRIVES)
    assert oracle.resets == 1
    for entry in present(scores):
        assert entry.ap == pytest.approx(1.0, abs=1e-9)
        assert np.nanmax(list(entry.errors.values())) < 1e-6
    assert scores.errors["mATE"] < 1e-6 + np.mean([entry.truths == 0 for entry in scores.classes.values()])


def test_what_lies_out_of_reach_does_not_count(truths):
    near = evaluate_world(Oracle(truths), DRIVES, reach=20.0)
    count, every = (
        sum(entry.truths for entry in scores.classes.values())
        for scores in (near, evaluate_world(Oracle(truths), DRIVES))
    )
    assert 0 < count < every
    for entry in present(near):
        assert entry.ap == pytest.approx(1.0, abs=1e-9)


def test_what_no_camera_in_question_sees_does_not_count(truths):
    without_back = tuple(name for name in NUSCENES_CAMERAS if name != "CAM_BACK")
    with pytest.raises(ValueError, match=r"nothing to evaluate"):
        evaluate_world(Oracle(truths), [], seen_by=without_back)
    of_five = evaluate_world(Oracle(truths, cameras=without_back), DRIVES, seen_by=without_back)
    of_six = evaluate_world(Oracle(truths), DRIVES, seen_by=without_back)
    every = evaluate_world(Oracle(truths), DRIVES)
    five, six, all_of_it = (
        sum(entry.truths for entry in scores.classes.values()) for scores in (of_five, of_six, every)
    )
    assert 0 < five == six < all_of_it
    for entry in present(of_five):  # what the oracle finds behind the car is no false box
        assert entry.ap == pytest.approx(1.0, abs=1e-9)


def test_a_camera_that_the_simulated_car_lacks_is_refused(truths):
    with pytest.raises(ValueError, match="the simulated car has no camera roof; it has CAM_FRONT, "):
        evaluate_world(Oracle(truths, cameras=("CAM_FRONT", "roof")), DRIVES)


def test_proposals_are_scored_where_wanted(truths):
    scores = evaluate_world(Oracle(truths), DRIVES, proposals=True)
    for entry in present(scores):
        assert entry.aps[0.5] < 0.1 and entry.aps[2.0] > 0.9
        assert entry.errors["mATE"] == pytest.approx(0.6, abs=0.03)


def test_a_model_without_proposals_is_refused():
    with pytest.raises(ValueError, match="oracle makes no proposals"):
        evaluate_world(Oracle({}, makes_proposals=False), DRIVES, proposals=True)


def test_the_demo_weights_see_worlds_they_never_learned_from():
    drives = [Drive(seed, seconds=3.0, rate=KEYFRAME_RATE) for seed in EVALUATION_SEEDS[:2]]
    scores = evaluate_world(load_detector(model_file("demo")), drives)
    assert np.mean([entry.ap for entry in present(scores)]) > 0.35


def test_five_cameras_see_in_their_view_what_six_see_there():
    drives = [Drive(seed, seconds=2.0, rate=KEYFRAME_RATE) for seed in EVALUATION_SEEDS[:2]]
    five = {name: name for name in NUSCENES_CAMERAS if name != "CAM_BACK"}
    scores = [
        evaluate_world(load_detector(model_file("demo"), model_cameras=cameras), drives, seen_by=five)
        for cameras in (five, None)
    ]
    of_five, of_six = (np.mean([entry.ap for entry in present(one)]) for one in scores)
    assert of_five == pytest.approx(of_six, abs=0.05) and of_five > 0.35
