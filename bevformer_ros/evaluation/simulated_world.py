"""A detector's scores on drives through the simulated world, without bags and without ROS."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
from tqdm import tqdm

from bevformer_ros.evaluation.attributes import with_guessed_attributes
from bevformer_ros.evaluation.protocol import EvaluationSample, Scores, score
from bevformer_ros.inference.pipeline import Detector
from bevformer_ros.simulation.drive import Drive, observations
from bevformer_ros.simulation.rig import BASE_FROM_LIDAR
from bevformer_ros.types import Detections3D, SurroundFrame

KEYFRAME_RATE = 2.0  # sets a second, as nuScenes has them


def evaluate_world(detector: Detector, drives: Sequence[Drive], proposals: bool = False, workers: int = 0) -> Scores:
    """The nuScenes metrics over all sets of the drives.

    The detector sees the sets one after the other, as the node does; each drive is a new scene, so that history is
    kept within it alone. The truth is what `simulation.observe` calls visible, in the ego frame. Boxes without an
    attribute get the guessed one.
    proposals: score the boxes of the perspective head in place of the decoder's. workers: processes that render ahead.
    Raises ValueError for a model that makes no proposals where they are wanted.
    """
    if proposals and detector.config.proposals is None:
        raise ValueError(f"{detector.config.name} makes no proposals: its configuration has proposals: null")
    truths: deque[tuple[str, Detections3D]] = deque()

    def frames() -> Iterator[SurroundFrame]:
        total = sum(len(drive.reference_stamps) for drive in drives)
        for observation in tqdm(observations(drives, workers), desc="evaluating", total=total, unit="set"):
            truths.append((observation.frame.scene, observation.truth))
            yield observation.frame

    detector.reset()
    samples = []
    for found in detector.replay(frames()):
        boxes = found.proposals if proposals else found
        assert boxes is not None
        samples.append(_sample(*truths.popleft(), boxes))
    return score(samples)


def _sample(scene: str, truth: Detections3D, boxes: Detections3D) -> EvaluationSample:
    return EvaluationSample(
        f"{scene}-{truth.stamp_ns}",
        with_guessed_attributes(boxes.transformed(BASE_FROM_LIDAR)),
        truth.transformed(BASE_FROM_LIDAR),
        np.ones(len(truth), np.bool_),
    )
