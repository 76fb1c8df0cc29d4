"""What travels through the pipeline: images with calibration in, boxes out. Every type checks itself when made."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bevformer_ros import geometry
from bevformer_ros.lens import PINHOLE, Lens, virtual_pinhole
from bevformer_ros.taxonomy import ATTRIBUTE_NAMES, CLASS_NAMES, NO_ATTRIBUTE

# Time outside the model is whole nanoseconds.
MILLISECOND_NS = 1_000_000
SECOND_NS = 1_000_000_000


def _check(name: str, array: NDArray, shape: tuple[int | None, ...]) -> None:
    if array.ndim != len(shape) or any(want not in (None, have) for want, have in zip(shape, array.shape, strict=True)):
        wanted = "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
        raise ValueError(f"{name} has shape {array.shape}, expected {wanted}")


def _check_transform(name: str, matrix: NDArray) -> None:
    _check(name, matrix, (4, 4))
    rotation = matrix[:3, :3]
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) or not np.allclose(matrix[3], (0, 0, 0, 1)):
        raise ValueError(f"{name} is not a rigid transform:\n{matrix}")


@dataclass(frozen=True)
class CameraImage:
    """One image with what is needed to project into it, see bevformer_ros.lens.

    image: (H, W, 3) uint8, BGR; from a GPU's decoder an inference.device_image.DeviceImage. intrinsics: (3, 3) in
    pixels of this image, pixel centres at integers. camera_from_bev: (4, 4), from the BEV frame at the frame's
    reference stamp to the optical frame at this image's own stamp. lens: a pinhole for a rectified image.
    field_of_view_deg: across the width, of the image that the network gets in place of this one; None keeps the focal
    length. masks: polygons of (column, row) in this image, in which the network gets its mean colour and proposes
    nothing.
    """

    name: str
    stamp_ns: int
    image: NDArray[np.uint8]
    intrinsics: NDArray[np.float64]
    camera_from_bev: NDArray[np.float64]
    lens: Lens = PINHOLE
    field_of_view_deg: float | None = None
    masks: geometry.Polygons = ()

    def __post_init__(self) -> None:
        _check(f"{self.name}: image", self.image, (None, None, 3))
        if self.image.dtype != np.uint8:
            raise ValueError(f"{self.name}: image is {self.image.dtype}, expected uint8 BGR")
        _check(f"{self.name}: intrinsics", self.intrinsics, (3, 3))
        if not (self.intrinsics[0, 0] > 0 and self.intrinsics[1, 1] > 0):
            raise ValueError(
                f"{self.name}: focal lengths {self.intrinsics[0, 0]}, {self.intrinsics[1, 1]} must be positive; "
                "is the camera calibrated?"
            )
        _check_transform(f"{self.name}: camera_from_bev", self.camera_from_bev)

    @property
    def is_rectified(self) -> bool:
        """Whether the network gets this very image."""
        return self.lens.is_pinhole and self.field_of_view_deg is None

    @property
    def rectified_intrinsics(self) -> NDArray[np.float64]:
        """(3, 3), of the image that the network gets."""
        return virtual_pinhole(self.intrinsics, self.image.shape[1], self.field_of_view_deg)

    def cropped(self, crop: tuple[int, int, int, int] | None) -> CameraImage:
        """The part of the image that is left, top, right, bottom in its pixels; all of it where None."""
        if crop is None:
            return self
        left, top, right, bottom = crop
        moved = np.array([[1.0, 0.0, -left], [0.0, 1.0, -top], [0.0, 0.0, 1.0]])
        masks = tuple(tuple((column - left, row - top) for column, row in mask) for mask in self.masks)
        image, intrinsics = self.image[top:bottom, left:right], moved @ self.intrinsics
        return replace(self, image=image, intrinsics=intrinsics, masks=masks)

    def sees(self, points_bev: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(n,): which of the points (n, 3) of the BEV frame lie in the image that the network gets, what stands before
        them left aside."""
        pixels, depth = geometry.project(self.rectified_intrinsics, geometry.apply(self.camera_from_bev, points_bev))
        size = np.array(self.image.shape[1::-1])
        return (depth > 0) & ((pixels > -0.5) & (pixels < size - 0.5)).all(axis=-1)


@dataclass(frozen=True)
class SurroundFrame:
    """All cameras at one reference stamp.

    cameras: in the order of the rig; None where a camera is missing from the set.
    world_from_bev: (4, 4) pose of the BEV frame at the stamp in a frame that stays put (odom or map).
    scene: name of the drive; history never crosses from one scene to the next.
    """

    stamp_ns: int
    cameras: tuple[CameraImage | None, ...]
    world_from_bev: NDArray[np.float64]
    scene: str = ""

    def __post_init__(self) -> None:
        if not any(camera is not None for camera in self.cameras):
            raise ValueError("a surround frame needs at least one camera image, got none")
        _check_transform("world_from_bev", self.world_from_bev)


class NotFiniteError(ValueError):
    """Numbers that should be finite are not."""


@dataclass(frozen=True)
class Detections3D:
    """Boxes at one stamp, best score first, in the frame the producer states (the pipeline: the BEV frame).

    centers: (n, 3) geometric centres. sizes: (n, 3) length, width, height. yaws: (n,) counter-clockwise from
    +x along the length. velocities: (n, 2) m/s along x and y. scores: (n,) in 0..1. labels: (n,) index into
    taxonomy.CLASS_NAMES. attributes: (n,) index into taxonomy.ATTRIBUTE_NAMES or NO_ATTRIBUTE.
    from_proposal: (n,) whether the decoder query was a perspective proposal. proposals: the perspective
    boxes that went into the decoder, where the model makes them.
    """

    stamp_ns: int
    centers: NDArray[np.float64]
    sizes: NDArray[np.float64]
    yaws: NDArray[np.float64]
    velocities: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    attributes: NDArray[np.int64]
    from_proposal: NDArray[np.bool_]
    proposals: Detections3D | None = None

    def __post_init__(self) -> None:
        count = len(self.centers)
        for name, shape in _DETECTION_SHAPES.items():
            _check(name, getattr(self, name), (count, *shape))
        if count == 0:
            return
        for name in ("centers", "sizes", "yaws", "velocities", "scores"):
            if not np.isfinite(getattr(self, name)).all():
                raise NotFiniteError(f"{name} holds values that are not finite")
        if self.sizes.min() <= 0:
            raise ValueError(f"sizes must be positive, got {self.sizes.min()}")
        if self.scores.min() < 0 or self.scores.max() > 1:
            raise ValueError(f"scores must lie in 0..1, got {self.scores.min()}..{self.scores.max()}")
        if self.labels.min() < 0 or self.labels.max() >= len(CLASS_NAMES):
            raise ValueError(f"labels must lie in 0..{len(CLASS_NAMES) - 1}, got {self.labels.tolist()}")
        if self.attributes.min() < NO_ATTRIBUTE or self.attributes.max() >= len(ATTRIBUTE_NAMES):
            raise ValueError(f"attributes must lie in -1..{len(ATTRIBUTE_NAMES) - 1}, got {self.attributes.tolist()}")

    def __len__(self) -> int:
        return len(self.centers)

    @classmethod
    def empty(cls, stamp_ns: int) -> Detections3D:
        floats: dict[str, Any] = {name: np.zeros((0, *_DETECTION_SHAPES[name])) for name in _FLOAT_FIELDS}
        return cls(
            stamp_ns,
            **floats,
            labels=np.zeros(0, np.int64),
            attributes=np.zeros(0, np.int64),
            from_proposal=np.zeros(0, np.bool_),
        )

    def select(self, rows: NDArray) -> Detections3D:
        """The boxes that a boolean mask (n,) or an index array names; proposals stay as they are."""
        return replace(self, **{name: getattr(self, name)[rows] for name in _DETECTION_SHAPES})

    def transformed(self, target_from_source: NDArray[np.float64]) -> Detections3D:
        """The same boxes in another frame whose z axis is about parallel: only the heading is carried over."""
        rotation = target_from_source[:3, :3]
        headings = np.stack([np.cos(self.yaws), np.sin(self.yaws), np.zeros(len(self))], axis=-1) @ rotation.T
        velocities = np.concatenate([self.velocities, np.zeros((len(self), 1))], axis=-1) @ rotation.T
        return replace(
            self,
            centers=geometry.apply(target_from_source, self.centers),
            yaws=np.arctan2(headings[:, 1], headings[:, 0]),
            velocities=velocities[:, :2],
            proposals=None if self.proposals is None else self.proposals.transformed(target_from_source),
        )

    def corners(self) -> NDArray[np.float64]:
        """(n, 8, 3), in the order of geometry.box_corners."""
        return geometry.box_corners(self.centers, self.sizes, self.yaws)


_FLOAT_FIELDS = ("centers", "sizes", "yaws", "velocities", "scores")
_DETECTION_SHAPES: dict[str, tuple[int, ...]] = {
    entry.name: {"centers": (3,), "sizes": (3,), "velocities": (2,)}.get(entry.name, ())
    for entry in fields(Detections3D)
    if entry.name not in ("stamp_ns", "proposals")
}
