"""What the own car hides in an image is no source of proposals, eagerly and in graphs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from fake_recorder import FakeRecorder
from support import REPOSITORY

from bevformer_ros import geometry
from bevformer_ros.config import load_yaml
from bevformer_ros.inference.graphs import GraphRunner
from bevformer_ros.inference.pipeline import Detector, load_detector
from bevformer_ros.model.config import ImageConfig, ModelConfig, ProposalConfig
from bevformer_ros.model.network import build_network
from bevformer_ros.resources import model_file
from bevformer_ros.simulation.drive import Drive, observations
from bevformer_ros.simulation.seeds import EVALUATION_SEEDS
from bevformer_ros.types import CameraImage, Detections3D, SurroundFrame

SIZE = (160, 90)
TWO_STAGE = replace(
    load_yaml(ModelConfig, REPOSITORY / "test" / "smallest_two_stage.yaml"),
    image=ImageConfig(SIZE, crop=(0, 26, 160, 90), height=64),
    proposals=ProposalConfig(score_threshold=0.0, minimum_score=0.0, count=30),
)
HEADINGS = dict(zip(TWO_STAGE.cameras, np.radians((0, -55, 55, 180, 110, -110)), strict=True))
EVERYTHING = ((0.0, 0.0), (160.0, 0.0), (160.0, 90.0), (0.0, 90.0))
CORNER = ((0.0, 89.0), (1.0, 90.0), (0.0, 90.0))


def detector() -> Detector:
    torch.manual_seed(0)
    return Detector(build_network(TWO_STAGE), trained=True)


def camera(name: str, heading: float) -> CameraImage:
    pixels = np.random.default_rng(len(name)).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    bev_from_camera = geometry.transform_from_rpy((0.0, 0.5, 0.0), (-np.pi / 2, 0.0, heading))
    intrinsics = np.array([[80.0, 0, 80], [0, 80, 45], [0, 0, 1]])
    return CameraImage(name, 0, pixels, intrinsics, geometry.invert(bev_from_camera))


def surround(stamp_ms: int = 0, missing: tuple[str, ...] = (), **masks: tuple) -> SurroundFrame:
    cameras = (replace(camera(name, heading), masks=masks.get(name, ())) for name, heading in HEADINGS.items())
    kept = tuple(None if entry.name in missing else entry for entry in cameras)
    return SurroundFrame(stamp_ms * 1_000_000, kept, np.eye(4))


def proposals_of(detect: Detector, frame: SurroundFrame) -> Detections3D:
    proposals = detect(frame).proposals
    assert proposals is not None
    return proposals


def test_a_camera_behind_its_mask_proposes_nothing() -> None:
    others = ("CAM_FRONT_RIGHT", "CAM_FRONT_LEFT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")
    behind = proposals_of(detector(), surround(**dict.fromkeys(others, (EVERYTHING,))))
    expected = proposals_of(detector(), surround(missing=others))
    assert 0 < len(expected) < len(proposals_of(detector(), surround()))
    np.testing.assert_allclose(behind.centers, expected.centers, atol=1e-4)


def test_a_masked_car_is_warmed_up_with_its_graphs() -> None:
    detect = detector()
    detect._run = GraphRunner(FakeRecorder())
    detect.warm_up(masked=True)
    recorded = detect._run.recordings
    without_graphs = detector()
    frames = [
        surround(0, CAM_BACK=(CORNER,)),
        surround(500, missing=("CAM_BACK",)),
        surround(1000, CAM_BACK=(CORNER, EVERYTHING)),  # a mask is no constant of the recording
    ]
    for frame in frames:
        np.testing.assert_allclose(
            proposals_of(detect, frame).centers, proposals_of(without_graphs, frame).centers, atol=1e-4
        )
    assert detect._run.recordings == recorded > 0


def test_without_masks_the_network_is_asked_as_ever() -> None:
    detect = detector()
    assert detect.prepare(surround()).seen is None
    seen = detect.prepare(surround(CAM_FRONT=(EVERYTHING,))).seen
    assert seen is not None and seen.shape == (1, 6, *reversed(TWO_STAGE.image.padded_size))
    assert [bool(of_camera.all()) for of_camera in seen[0]] == [False, *5 * [True]]


def test_an_object_under_a_mask_is_proposed_no_more() -> None:
    """The surest thing that a camera, which is alone, sees of a street; then with a mask over it."""
    (observation,) = observations([Drive(EVALUATION_SEEDS[0], seconds=0.1)])
    front, *others = observation.frame.cameras
    assert front is not None
    street = replace(observation.frame, cameras=(front, *(None for _ in others)))
    before = proposals_of(load_detector(model_file("demo")), street)
    corners = geometry.apply(front.camera_from_bev, before.corners()[0])
    pixels, _ = geometry.project(front.intrinsics, corners)
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    (left, top), (right, bottom) = low - 60, high + 60
    masked = replace(front, masks=(((left, top), (right, top), (right, bottom), (left, bottom)),))

    after = proposals_of(load_detector(model_file("demo")), replace(street, cameras=(masked, *street.cameras[1:])))

    def there(boxes: Detections3D) -> int:
        places, _ = geometry.project(front.intrinsics, geometry.apply(front.camera_from_bev, boxes.centers))
        return int(((places > low) & (places < high)).all(axis=1).sum())

    assert there(before) > 0 and before.scores[0] > 0.5
    assert there(after) == 0
    assert after.scores.max() > 0.5  # of what is elsewhere
