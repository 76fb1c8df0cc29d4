"""A detector's scores on drives through the simulated world, without bags and without ROS."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bevformer_ros.evaluation.attributes import with_guessed_attributes
from bevformer_ros.evaluation.protocol import EvaluationSample, Scores, score
from bevformer_ros.inference.pipeline import Detector
from bevformer_ros.simulation.drive import Drive, observations
from bevformer_ros.simulation.observe import Observation
from bevformer_ros.simulation.rig import BASE_FROM_LIDAR
from bevformer_ros.types import Detections3D, SurroundFrame

KEYFRAME_RATE = 2.0  # sets a second, as nuScenes has them


def evaluate_world(
    detector: Detector,
    drives: Sequence[Drive],
    proposals: bool = False,
    workers: int = 0,
    reach: float | None = None,
) -> Scores:
    """The nuScenes metrics over all sets of the drives.

    The detector sees the sets one after the other, as the node does; each drive is a new scene, so that history is
    kept within it alone. The truth is what `simulation.observe` calls visible, in the ego frame. Boxes without an
    attribute get the guessed one.
    proposals: score the boxes of the perspective head in place of the decoder's. workers: processes that render ahead.
    reach: metres along x and y of the BEV frame, beyond which neither boxes nor truth count; None for all.
    Raises ValueError for a model that makes no proposals where they are wanted.
    """
    if proposals and detector.config.proposals is None:
        raise ValueError(f"{detector.config.name} makes no proposals: its configuration has proposals: null")
    samples = []
    for observed, found in detected(detector, drives, workers):
        boxes = found.proposals if proposals else found
        assert boxes is not None
        samples.append(_sample(observed.scene, _within(observed.truth, reach), _within(boxes, reach)))
    return score(samples)


@dataclass(frozen=True)
class Observed:
    """An observation without its images. The truth is in the BEV frame."""

    scene: str
    truth: Detections3D
    object_ids: NDArray[np.int64]
    world_from_bev: NDArray[np.float64]


def true(drives: Sequence[Drive], workers: int = 0) -> Iterator[tuple[Observed, Detections3D]]:
    """All sets of the drives, with the truth as if it had been detected."""
    for observation in _observations(drives, workers):
        yield _without_images(observation), observation.truth


def detected(detector: Detector, drives: Sequence[Drive], workers: int = 0) -> Iterator[tuple[Observed, Detections3D]]:
    """All sets of the drives, with what a detector finds in them, in the BEV frame."""
    waiting: deque[Observed] = deque()

    def frames() -> Iterator[SurroundFrame]:
        for observation in _observations(drives, workers):
            waiting.append(_without_images(observation))
            yield observation.frame

    detector.reset()
    for found in detector.replay(frames()):
        yield waiting.popleft(), found


def _observations(drives: Sequence[Drive], workers: int) -> Iterator[Observation]:
    total = sum(len(drive.reference_stamps) for drive in drives)
    return iter(tqdm(observations(drives, workers), desc="evaluating", total=total, unit="set"))


def _without_images(observation: Observation) -> Observed:
    frame = observation.frame
    return Observed(frame.scene, observation.truth, observation.object_ids, frame.world_from_bev)


def _within(boxes: Detections3D, reach: float | None) -> Detections3D:
    if reach is None:
        return boxes
    return boxes.select(np.asarray((np.abs(boxes.centers[:, :2]) <= reach).all(axis=1)))


def _sample(scene: str, truth: Detections3D, boxes: Detections3D) -> EvaluationSample:
    return EvaluationSample(
        f"{scene}-{boxes.stamp_ns}",
        with_guessed_attributes(boxes.transformed(BASE_FROM_LIDAR)),
        truth.transformed(BASE_FROM_LIDAR),
        np.ones(len(truth), np.bool_),
    )
