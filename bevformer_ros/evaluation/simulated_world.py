"""A detector's scores on drives through the simulated world, without bags and without ROS."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bevformer_ros.evaluation.attributes import with_guessed_attributes
from bevformer_ros.evaluation.protocol import EvaluationSample, Scores, score
from bevformer_ros.inference.temporal_detector import AnyDetector
from bevformer_ros.simulation.drive import Drive, observations
from bevformer_ros.simulation.observe import Observation
from bevformer_ros.simulation.rig import BASE_FROM_LIDAR
from bevformer_ros.types import CameraImage, Detections3D, SurroundFrame

KEYFRAME_RATE = 2.0  # sets a second, as nuScenes has them


def evaluate_world(
    detector: AnyDetector,
    drives: Sequence[Drive],
    proposals: bool = False,
    workers: int = 0,
    reach: float | None = None,
    seen_by: Collection[str] | None = None,
) -> Scores:
    """The nuScenes metrics over world_samples of the same arguments."""
    return score(world_samples(detector, drives, proposals, workers, reach, seen_by))


def world_samples(
    detector: AnyDetector,
    drives: Sequence[Drive],
    proposals: bool = False,
    workers: int = 0,
    reach: float | None = None,
    seen_by: Collection[str] | None = None,
) -> list[EvaluationSample]:
    """All sets of the drives, with what a detector finds in them, in the ego frame.

    The detector gets the images of its cameras, one set after the other, as the node does; each drive is a new scene,
    so that history is kept within it alone. The truth is what `simulation.observe` calls visible, in the ego frame.
    Boxes without an attribute get the guessed one.
    proposals: score the boxes of the perspective head in place of the decoder's. workers: processes that render ahead.
    reach: metres along x and y of the BEV frame, beyond which neither boxes nor truth count; None for all.
    seen_by: names of cameras; only objects that one of these shows count, and of boxes and objects only those whose
    centre lies in an image of theirs. None for all.
    Raises ValueError for a model that makes no proposals where they are wanted, and for cameras that the simulated car
    lacks.
    """
    if proposals and detector.config.proposals is None:
        raise ValueError(f"{detector.config.name} makes no proposals: its configuration has proposals: null")
    samples = []
    for observed, found in detected(detector, drives, workers):
        boxes = found.proposals if proposals else found
        assert boxes is not None
        truth = observed.truth
        if seen_by is not None:
            truth = truth.select(observed.shown_by(seen_by) & observed.in_view_of(seen_by, truth.centers))
            boxes = boxes.select(observed.in_view_of(seen_by, boxes.centers))
        samples.append(_sample(observed.scene, _within(truth, reach), _within(boxes, reach)))
    return samples


@dataclass(frozen=True)
class Observed:
    """An observation without its pictures. The truth is in the BEV frame. visible: as in Observation."""

    scene: str
    truth: Detections3D
    object_ids: NDArray[np.int64]
    world_from_bev: NDArray[np.float64]
    cameras: tuple[CameraImage, ...]
    visible: NDArray[np.bool_]

    def shown_by(self, names: Collection[str]) -> NDArray[np.bool_]:
        """(n,): the true objects that one of these cameras shows."""
        columns = [column for column, camera in enumerate(self.cameras) if camera.name in names]
        return np.asarray(self.visible[:, columns].any(axis=1))

    def in_view_of(self, names: Collection[str], points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(n,): the points of the BEV frame that lie in the image of one of these cameras."""
        seen = [camera.sees(points) for camera in self.cameras if camera.name in names]
        return np.any(seen, axis=0) if seen else np.zeros(len(points), np.bool_)


def true(drives: Sequence[Drive], workers: int = 0) -> Iterator[tuple[Observed, Detections3D]]:
    """All sets of the drives, with the truth as if it had been detected."""
    for observation in _observations(drives, workers):
        yield _without_pictures(observation), observation.truth


def detected(
    detector: AnyDetector, drives: Sequence[Drive], workers: int = 0
) -> Iterator[tuple[Observed, Detections3D]]:
    """All sets of the drives, with what a detector finds in them, in the BEV frame."""
    waiting: deque[Observed] = deque()

    def frames() -> Iterator[SurroundFrame]:
        for observation in _observations(drives, workers):
            waiting.append(_without_pictures(observation))
            yield as_seen(observation.frame, detector.config.cameras)

    detector.reset()
    for found in detector.replay(frames()):
        yield waiting.popleft(), found


def _observations(drives: Sequence[Drive], workers: int) -> Iterator[Observation]:
    total = sum(len(drive.reference_stamps) for drive in drives)
    return iter(tqdm(observations(drives, workers), desc="evaluating", total=total, unit="set"))


def as_seen(frame: SurroundFrame, names: Sequence[str]) -> SurroundFrame:
    """With the images of these cameras, in this order."""
    cameras = {camera.name: camera for camera in frame.cameras if camera is not None}
    strangers = [name for name in names if name not in cameras]
    if strangers:
        raise ValueError(f"the simulated car has no camera {', '.join(strangers)}; it has {', '.join(cameras)}")
    return replace(frame, cameras=tuple(cameras[name] for name in names))


def _without_pictures(observation: Observation) -> Observed:
    frame, black = observation.frame, np.zeros((), np.uint8)
    cameras = tuple(
        replace(camera, image=np.broadcast_to(black, camera.image.shape)) for camera in frame.cameras if camera
    )
    return Observed(
        frame.scene, observation.truth, observation.object_ids, frame.world_from_bev, cameras, observation.visible
    )


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
