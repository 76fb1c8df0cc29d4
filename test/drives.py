"""A hand-made drive for tests of training: two cameras, a few boxes, an ego car that drives ahead."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bevformer_ros import geometry
from bevformer_ros.taxonomy import ATTRIBUTE_ID, CLASS_ID, NO_ATTRIBUTE
from bevformer_ros.training.labelled_frame import LabelledFrame
from bevformer_ros.types import CameraImage, Detections3D, SurroundFrame

NAMES = ("CAM_FRONT_RIGHT", "CAM_FRONT_LEFT")
WIDTH, HEIGHT = 160, 90
SPEED = 8.0


def labelled_frame(index: int = 0, scene: str = "drive") -> LabelledFrame:
    """Frame `index` at two per second: a car in front to the right, a cone to the left whose velocity is unknown."""
    truth = Detections3D(
        stamp_ns=index * 500_000_000,
        centers=np.array([[4.0, 12.0 - 0.5 * index, -1.0], [-5.0, 10.0, -1.4]]),
        sizes=np.array([[4.5, 1.9, 1.7], [0.4, 0.4, 1.0]]),
        yaws=np.array([1.2, -0.3]),
        velocities=np.array([[1.0, 3.0], [0.0, 0.0]]),
        scores=np.ones(2),
        labels=np.array([CLASS_ID["car"], CLASS_ID["traffic_cone"]]),
        attributes=np.array([ATTRIBUTE_ID["vehicle.stopped"], NO_ATTRIBUTE]),
        from_proposal=np.zeros(2, np.bool_),
    )
    world_from_bev = geometry.transform_from_rpy((3.0, SPEED * 0.5 * index, 1.8), (0.0, 0.0, 0.1))
    cameras = tuple(_camera(name, truth.stamp_ns, index) for name in NAMES)
    frame = SurroundFrame(truth.stamp_ns, cameras, world_from_bev, scene)
    return LabelledFrame(frame, truth, np.array([True, False]), np.array([[True, False], [False, True]]))


def _camera(name: str, stamp_ns: int, seed: int) -> CameraImage:
    side = 1.0 if "RIGHT" in name else -1.0
    forward = geometry.transform_from_rpy((0.0, 0.0, 0.0), (-np.pi / 2, 0.0, 0.0))
    bev_from_camera = geometry.transform_from_rpy((side * 0.5, 0.3, -0.3), (0.0, 0.0, -side * 0.45)) @ forward
    image = np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    intrinsics = np.array([[120.0, 0.0, 82.0 + side], [0.0, 121.0, 44.0], [0.0, 0.0, 1.0]])
    return CameraImage(name, stamp_ns + 20_000_000, image, intrinsics, geometry.invert(bev_from_camera))


class Drives:
    """DriveDataset of hand-made drives."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.lengths = lengths

    def frames(self, drive: int, first: int, count: int) -> list[LabelledFrame]:
        last = min(first + count, self.lengths[drive])
        return [labelled_frame(index, f"drive-{drive}") for index in range(first, last)]


def pixels_of(labelled: LabelledFrame, camera: int) -> np.ndarray:
    """Pixels (n, 8, 2) of the corners of all boxes in a camera; NaN behind it."""
    view = labelled.frame.cameras[camera]
    assert view is not None
    return geometry.project(view.intrinsics, geometry.apply(view.camera_from_bev, labelled.truth.corners()))[0]
