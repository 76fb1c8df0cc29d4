"""Augmentation of labelled frames: the image and the geometry change together, so that every view stays a true one.

The exception is scale, which only the BEV side of the network sees, as in the official code: a picture does not change
with it, so depths learned from pictures must not either.

All functions give a new frame; what a clip's frames share (mirroring, turn, scale) must be applied to all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from bevformer_ros import geometry
from bevformer_ros.training.config import AugmentationConfig
from bevformer_ros.training.labelled_frame import LabelledFrame
from bevformer_ros.types import CameraImage

_MIRROR_X = np.diag([-1.0, 1.0, 1.0, 1.0])
_BORDER = (104, 116, 124)  # BGR, a usual mean colour


@dataclass(frozen=True)
class ClipAugmentation:
    """What one clip undergoes. turn: radians counter-clockwise. zooms, shifts: (N,) and (N, 2), shares of an image's
    width and height, per camera. gains: (N,) of brightness."""

    mirror: bool
    turn: float
    scale: float
    zooms: NDArray[np.float64]
    shifts: NDArray[np.float64]
    gains: NDArray[np.float64]

    @classmethod
    def draw(cls, config: AugmentationConfig, cameras: int, random: np.random.Generator) -> ClipAugmentation:
        return cls(
            mirror=bool(random.random() < config.mirror),
            turn=random.uniform(-config.turn, config.turn),
            scale=random.uniform(*config.scale),
            zooms=random.uniform(*config.zoom, cameras),
            shifts=random.uniform(-config.shift, config.shift, (cameras, 2)),
            gains=random.uniform(*config.gain, cameras),
        )

    def __call__(self, labelled: LabelledFrame, names: Sequence[str]) -> LabelledFrame:
        """names: of the frame's cameras, also of those that are missing."""
        if self.mirror:
            labelled = mirrored(labelled, names)
        labelled = replace(turned(labelled, self.turn), bev_scale=self.scale)
        cameras = tuple(
            None if camera is None else photographed(camera, zoom, shift, gain)
            for camera, zoom, shift, gain in zip(
                labelled.frame.cameras, self.zooms, self.shifts, self.gains, strict=True
            )
        )
        return replace(labelled, frame=replace(labelled.frame, cameras=cameras))


def mirrored(labelled: LabelledFrame, names: Sequence[str]) -> LabelledFrame:
    """The world seen in a mirror that swaps left and right: of the BEV frame, of each image, and among the cameras."""
    order = mirrored_order(names)
    frame, truth = labelled.frame, labelled.truth
    cameras = tuple(
        None if camera is None else _mirrored_camera(camera, name)
        for camera, name in zip((frame.cameras[index] for index in order), names, strict=True)
    )
    truth = replace(
        truth,
        centers=truth.centers * (-1, 1, 1),
        yaws=geometry.wrap_angle(np.pi - truth.yaws),
        velocities=truth.velocities * (-1, 1),
    )
    pose = _MIRROR_X @ frame.world_from_bev @ _MIRROR_X
    frame = replace(frame, cameras=cameras, world_from_bev=pose)
    return replace(labelled, frame=frame, truth=truth, visible=labelled.visible[:, order])


def mirrored_order(names: Sequence[str]) -> list[int]:
    """Index of the camera that each camera's place in the mirror shows; LEFT and RIGHT in the names tell."""
    swapped = [name.replace("LEFT", "?").replace("RIGHT", "LEFT").replace("?", "RIGHT") for name in names]
    return [names.index(name) if name in names else index for index, name in enumerate(swapped)]


def _mirrored_camera(camera: CameraImage, name: str) -> CameraImage:
    if not camera.is_rectified:
        raise ValueError(f"{camera.name}: a distorted image cannot be mirrored; rectify the images for training")
    intrinsics = camera.intrinsics.copy()
    intrinsics[0, 1] *= -1
    intrinsics[0, 2] = camera.image.shape[1] - 1 - intrinsics[0, 2]
    return replace(
        camera,
        name=name,
        image=np.ascontiguousarray(camera.image[:, ::-1]),
        intrinsics=intrinsics,
        camera_from_bev=_MIRROR_X @ camera.camera_from_bev @ _MIRROR_X,
    )


def turned(labelled: LabelledFrame, turn: float) -> LabelledFrame:
    """The BEV frame turned clockwise about its z axis, so that the world turns counter-clockwise by `turn` radians; the
    images stay as they are."""
    frame = labelled.frame
    new_from_old = geometry.transform_from_rpy((0.0, 0.0, 0.0), (0.0, 0.0, turn))
    old_from_new = geometry.invert(new_from_old)
    cameras = tuple(
        None if camera is None else replace(camera, camera_from_bev=camera.camera_from_bev @ old_from_new)
        for camera in frame.cameras
    )
    frame = replace(frame, cameras=cameras, world_from_bev=frame.world_from_bev @ old_from_new)
    return replace(labelled, frame=frame, truth=labelled.truth.transformed(new_from_old))


def photographed(camera: CameraImage, zoom: float, shift: NDArray[np.float64], gain: float) -> CameraImage:
    """The image zoomed about its principal point, moved by shares of its size, and brightened; intrinsics follow."""
    height, width = camera.image.shape[:2]
    center = camera.intrinsics[:2, 2]
    image_from_image = np.eye(3)
    image_from_image[:2, :2] *= zoom
    image_from_image[:2, 2] = (1 - zoom) * center + shift * (width, height)
    image = camera.image
    if zoom != 1 or shift.any():
        image = cv2.warpAffine(image, image_from_image[:2], (width, height), borderValue=_BORDER).astype(np.uint8)
    if gain != 1:
        image = cv2.convertScaleAbs(image, alpha=gain).astype(np.uint8)
    return replace(camera, image=image, intrinsics=image_from_image @ camera.intrinsics)
