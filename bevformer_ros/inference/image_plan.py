"""What a camera's calibration and image size determine about its way into the network: crop, resize, rectification.

Intrinsics follow the official rule u' = scale * (u - crop): half a pixel of the resize is not accounted for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bevformer_ros.lens import undistortion_maps
from bevformer_ros.model.config import ImageConfig
from bevformer_ros.types import CameraImage, SurroundFrame


@dataclass(frozen=True)
class ImagePlan:
    """What happens to an image of one size: crop, resize, mirror.

    crop: left, top, right, bottom in pixels of the (undistorted) image. size: width, height after the resize.
    scale: of the intrinsics. mirror: flip left to right (training; the intrinsics stay, because the features are
    flipped back).
    """

    crop: tuple[int, int, int, int]
    size: tuple[int, int]
    scale: float
    mirror: bool = False

    @classmethod
    def to_height(cls, crop: tuple[int, int, int, int], height: int, mirror: bool = False) -> ImagePlan:
        """Resize a crop to a height; the width follows, cut to whole pixels."""
        left, top, right, bottom = crop
        scale = height / (bottom - top)
        return cls(crop, (int(scale * (right - left)), height), scale, mirror)

    @classmethod
    def for_size(cls, config: ImageConfig, width: int, height: int) -> ImagePlan:
        """The model's crop rule applied to an image of another size than the model was trained with.

        The width is matched and the crop keeps its distance from the bottom edge. An image too low for the crop
        fills only the upper part of the network's input.
        """
        native_width, native_height = config.source_size
        left, top, right, bottom = config.crop
        ratio = width / native_width
        crop_height = -(-(bottom - top) * width // native_width)
        own_bottom = height - round((native_height - bottom) * ratio)
        own_top = own_bottom - crop_height
        if own_bottom <= 0:
            raise ValueError(
                f"an image of {width} x {height} has nothing left above the bottom {native_height - bottom} of "
                f"{native_height} rows that the model crops away; is it a {native_width} x {native_height} camera?"
            )
        own_crop = (round(left * ratio), max(own_top, 0), round(right * ratio), own_bottom)
        scale = config.height / crop_height
        size = (int(scale * (own_crop[2] - own_crop[0])), max(int(scale * (own_bottom - own_crop[1])), 1))
        return cls(own_crop, size, scale)

    def intrinsics(self, intrinsics: NDArray[np.float64]) -> NDArray[np.float64]:
        """Intrinsics (3, 3) in pixels of the result from those of the image."""
        left, top = self.crop[:2]
        shift = np.array([[self.scale, 0, -self.scale * left], [0, self.scale, -self.scale * top], [0, 0, 1]])
        return shift @ intrinsics


def decoding_reduction(config: ImageConfig, size: tuple[int, int], magnification: float = 1.0) -> int:
    """By what, of 1, 2 and 4, an image of a size (width, height) may be smaller and still be no smaller than what the
    network takes. magnification: focal length of the rectified image over that of the image."""
    try:
        scale = ImagePlan.for_size(config, *size).scale * magnification
    except ValueError:  # an image that the preprocessor will refuse
        return 1
    return max(reduction for reduction in (1, 2, 4) if reduction == 1 or reduction * scale <= 1)


def image_from_bev(intrinsics: NDArray[np.float64], camera_from_bev: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., 4, 4) homogeneous projection: rows u*depth, v*depth, depth, 1."""
    result = np.array(camera_from_bev, dtype=np.float64)
    result[..., :3, :] = intrinsics @ result[..., :3, :]
    return result


class CameraPlan:
    """Of one camera. plan: of its images, rectified. intrinsics: (3, 3) in pixels of the network's input. crop: rows
    and columns of the rectified image. maps: of columns and rows, where a rectified pixel lies in the camera's image;
    None for an image that is rectified. seen: (h, w) of the network's input, False where more than half a pixel lies
    under a mask of the camera; None without masks.
    """

    def __init__(self, camera: CameraImage, config: ImageConfig) -> None:
        height, width = camera.image.shape[:2]
        self.size = (width, height)
        self._intrinsics, self._view = camera.intrinsics.copy(), _view(camera)
        self.plan = ImagePlan.for_size(config, width, height)
        self.intrinsics = self.plan.intrinsics(camera.rectified_intrinsics)
        left, top, right, bottom = self.plan.crop
        self.crop = slice(top, bottom), slice(left, right)
        self.maps: tuple[NDArray, NDArray] | None = None
        if not camera.is_rectified:
            self.maps = undistortion_maps(camera.lens, camera.intrinsics, camera.rectified_intrinsics, self.size)
        self.seen = self._seen(camera) if camera.masks else None
        self._fixed_point_maps = None if self.maps is None else cv2.convertMaps(*self.maps, cv2.CV_16SC2)

    def serves(self, camera: CameraImage) -> bool:
        return (
            camera.image.shape[1::-1] == self.size
            and np.array_equal(camera.intrinsics, self._intrinsics)
            and _view(camera) == self._view
        )

    def rectified(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(h, w, 3), undistorted and cropped, on the host."""
        image = np.asarray(image)
        if self._fixed_point_maps is not None:
            image = np.asarray(cv2.remap(image, *self._fixed_point_maps, interpolation=cv2.INTER_LINEAR), np.uint8)
        return image[self.crop]

    def _seen(self, camera: CameraImage) -> NDArray[np.bool_]:
        covered = np.zeros(camera.image.shape[:2], np.uint8)
        for mask in camera.masks:
            cv2.fillPoly(covered, [np.round(np.array(mask) * 16).astype(np.int32)], 255, cv2.LINE_8, 4)
        if self.maps is not None:
            covered = np.asarray(cv2.remap(covered, *self.maps, interpolation=cv2.INTER_LINEAR), np.uint8)
        small = cv2.resize(covered[self.crop], self.plan.size, interpolation=cv2.INTER_AREA)
        return np.asarray(small < 128)


def _view(camera: CameraImage) -> tuple[Any, ...]:
    """What else than its intrinsics says how a camera's image is changed."""
    return camera.lens, camera.field_of_view_deg, camera.masks


class CameraPlans:
    """The plans of all cameras, kept until a calibration changes.

    seen: (1, N, H, W) of the network's input, False under a camera's masks, of a camera that is missing now as it was
    last; None where no camera has any.
    """

    def __init__(self, config: ImageConfig) -> None:
        self._config = config
        self._plans: list[CameraPlan | None] = []
        self.seen: NDArray[np.bool_] | None = None

    def of(self, frame: SurroundFrame) -> list[CameraPlan | None]:
        """One for each camera of the frame, None for one that is missing. Raises ValueError where an image size cannot
        be handled."""
        if len(self._plans) != len(frame.cameras):
            self._plans = [None] * len(frame.cameras)
        for index, camera in enumerate(frame.cameras):
            plan = self._plans[index]
            if camera is not None and (plan is None or not plan.serves(camera)):
                self._plans[index] = CameraPlan(camera, self._config)
                self.seen = self._seen_by_all()
        return [None if camera is None else plan for camera, plan in zip(frame.cameras, self._plans, strict=True)]

    def _seen_by_all(self) -> NDArray[np.bool_] | None:
        masked = [(index, plan) for index, plan in enumerate(self._plans) if plan is not None and plan.seen is not None]
        if not masked:
            return None
        width, height = self._config.padded_size
        seen = np.ones((1, len(self._plans), height, width), np.bool_)
        for index, plan in masked:
            columns, rows = plan.plan.size
            seen[0, index, :rows, :columns] = plan.seen
        return seen


def matrices_of(
    frame: SurroundFrame, plans: list[CameraPlan | None]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """intrinsics (N, 3, 3) in pixels of the network's input and camera_from_bev (N, 4, 4); identity where a camera is
    missing."""
    pairs = list(zip(frame.cameras, plans, strict=True))
    intrinsics = np.array([np.eye(3) if plan is None else plan.intrinsics for _, plan in pairs])
    camera_from_bev = np.array([np.eye(4) if camera is None else camera.camera_from_bev for camera, _ in pairs])
    return intrinsics, camera_from_bev
