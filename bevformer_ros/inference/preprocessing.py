"""From camera images of any size to the network's input, image and intrinsics together.

The official evaluation pipeline resizes with Pillow's bicubic on the CPU. This one does the same work in torch, where
the network runs: after a resize at most 1 % of the values (1.3 % in an image of 31 rows) are off by one grey level,
single ones by two; without a resize none.

Intrinsics follow the official rule u' = scale * (u - crop): half a pixel of the resize is not accounted for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bevformer_ros.inference.memory import upload
from bevformer_ros.lens import undistortion_maps
from bevformer_ros.model.config import ImageConfig
from bevformer_ros.model.network import NetworkInputs
from bevformer_ros.stage_clock import Mark, unmarked
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


def resize(images: Tensor, plan: ImagePlan) -> Tensor:
    """Resize and mirror images (n, 3, H, W) of whole grey levels, already cropped -> the same, (n, 3, h, w)."""
    width, height = plan.size
    if images.dtype == torch.uint8 and images.device.type == "cpu":
        sizes = [(height, width)]  # torch does both steps below at once for bytes, but has that for the CPU alone
    else:
        images = images.float()
        # Like Pillow: first along the rows, then along the columns, whole grey levels in between.
        sizes = [(images.shape[2], width), (height, width)]
    for size in sizes:
        if images.shape[2:] != size:
            images = functional.interpolate(images, size, mode="bicubic", antialias=True)
            if images.is_floating_point():
                images = (images + 0.5).floor().clamp(0, 255)
    return images.flip(-1) if plan.mirror else images


@dataclass(frozen=True)
class PreparedFrame:
    """A surround frame with its images as the network takes them. B is 1, N cameras in the order of the rig.

    images: (1, N, 3, H, W) normalised. camera_valid: (1, N) bool. Geometry stays on the host in float64, because
    history composes it with later poses: intrinsics (N, 3, 3) in pixels of the input, camera_from_bev (N, 4, 4);
    identity where a camera is missing. seen: (1, N, H, W) bool, False under a camera's masks; None where no camera has
    any.
    """

    frame: SurroundFrame
    images: Tensor
    camera_valid: Tensor
    intrinsics: NDArray[np.float64]
    camera_from_bev: NDArray[np.float64]
    seen: Tensor | None = None

    @property
    def image_from_bev(self) -> NDArray[np.float64]:
        """(N, 4, 4): intrinsics times camera_from_bev; the official lidar2img."""
        return image_from_bev(self.intrinsics, self.camera_from_bev)

    def network_inputs(self) -> NetworkInputs:
        """All of it on the device, in float32."""
        matrices = (self.intrinsics, self.camera_from_bev, self.image_from_bev)
        on_device = (upload(matrix[None], self.images.device, torch.float32) for matrix in matrices)
        return NetworkInputs(self.images, self.camera_valid, *on_device)


def image_from_bev(intrinsics: NDArray[np.float64], camera_from_bev: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., 4, 4) homogeneous projection: rows u*depth, v*depth, depth, 1."""
    result = np.array(camera_from_bev, dtype=np.float64)
    result[..., :3, :] = intrinsics @ result[..., :3, :]
    return result


class Preprocessor:
    """Turns surround frames into what the network takes; keeps what depends on the calibration alone.

    To a GPU go bytes from pinned memory; undistortion, resize and normalisation of all cameras happen there, and the
    host waits for none of it.
    """

    def __init__(self, config: ImageConfig, device: torch.device) -> None:
        self._config, self._device = config, device
        self._mean = torch.tensor(config.mean, device=device).view(3, 1, 1)
        self._deviation = torch.tensor(config.deviation, device=device).view(3, 1, 1)
        self._cameras: list[_CameraSlot | None] = []
        self._seen: Tensor | None = None

    def __call__(self, frame: SurroundFrame, mark: Mark = unmarked) -> PreparedFrame:
        """Raises ValueError where an image size cannot be handled."""
        if len(self._cameras) != len(frame.cameras):
            self._cameras = [None] * len(frame.cameras)
        count = len(frame.cameras)
        intrinsics, camera_from_bev = np.tile(np.eye(3), (count, 1, 1)), np.tile(np.eye(4), (count, 1, 1))
        by_plan: dict[ImagePlan, list[tuple[int, Tensor]]] = {}
        for index, camera in enumerate(frame.cameras):
            if camera is None:
                continue
            slot = self._slot(index, camera)
            by_plan.setdefault(slot.plan, []).append((index, slot.rectified(camera.image)))
            intrinsics[index], camera_from_bev[index] = slot.intrinsics, camera.camera_from_bev
        if self._device.type == "cuda":
            mark("upload")
        valid = upload(np.array([[camera is not None for camera in frame.cameras]]), self._device)
        images = self._network_images(count, by_plan)[None]
        return PreparedFrame(frame, images, valid, intrinsics, camera_from_bev, self._seen)

    def _slot(self, index: int, camera: CameraImage) -> _CameraSlot:
        slot = self._cameras[index]
        if slot is None or not slot.serves(camera):
            slot = self._cameras[index] = _CameraSlot(camera, self._config, self._device)
            self._seen = self._seen_by_all()
        return slot

    def _seen_by_all(self) -> Tensor | None:
        """PreparedFrame.seen; of a camera that is missing now as it was last."""
        slots = [(index, slot) for index, slot in enumerate(self._cameras) if slot is not None]
        if all(slot.seen is None for _, slot in slots):
            return None
        width, height = self._config.padded_size
        seen = torch.ones(1, len(self._cameras), height, width, dtype=torch.bool, device=self._device)
        for index, slot in slots:
            if slot.seen is not None:
                seen[0, index, : slot.plan.size[1], : slot.plan.size[0]] = slot.seen
        return seen

    def _network_images(self, count: int, by_plan: dict[ImagePlan, list[tuple[int, Tensor]]]) -> Tensor:
        """(N, 3, H, W) from each camera's rectified pixels; cameras of the same plan, usually all, at once."""
        width, height = self._config.padded_size
        images = torch.zeros(count, height, width, 3, device=self._device).permute(0, 3, 1, 2)  # channels last
        for plan, pairs in by_plan.items():
            pixels = torch.stack([pixels for _, pixels in pairs]).permute(0, 3, 1, 2)
            normalised = (resize(pixels, plan) - self._mean) / self._deviation
            for (camera, _), image in zip(pairs, normalised, strict=True):
                slot = self._cameras[camera]
                assert slot is not None
                if slot.seen is not None:
                    image = image * slot.seen  # zero is the mean colour
                images[camera, :, : plan.size[1], : plan.size[0]] = image
        return images


class _CameraSlot:
    """What one camera's calibration and image size determine: plan, intrinsics, rectification, way to the device."""

    def __init__(self, camera: CameraImage, config: ImageConfig, device: torch.device) -> None:
        height, width = camera.image.shape[:2]
        self._size = (width, height)
        self._intrinsics, self._view = camera.intrinsics.copy(), _view(camera)
        self.plan = ImagePlan.for_size(config, width, height)
        self.intrinsics = self.plan.intrinsics(camera.rectified_intrinsics)
        left, top, right, bottom = self.plan.crop
        self._crop = slice(top, bottom), slice(left, right)
        maps = None
        if not camera.is_rectified:
            maps = undistortion_maps(camera.lens, camera.intrinsics, camera.rectified_intrinsics, self._size)
        self.seen = self._seen(camera, maps).to(device) if camera.masks else None
        self._fixed_point_maps = None if maps is None else cv2.convertMaps(*maps, cv2.CV_16SC2)
        self._upload = _Upload(maps, self._size, self._crop, device) if device.type == "cuda" else None

    def serves(self, camera: CameraImage) -> bool:
        return (
            camera.image.shape[1::-1] == self._size
            and np.array_equal(camera.intrinsics, self._intrinsics)
            and _view(camera) == self._view
        )

    def _seen(self, camera: CameraImage, maps: tuple[NDArray, NDArray] | None) -> Tensor:
        """(h, w) bool of the network's input: False where more than half a pixel lies under a mask of the camera."""
        covered = np.zeros(camera.image.shape[:2], np.uint8)
        for mask in camera.masks:
            cv2.fillPoly(covered, [np.round(np.array(mask) * 16).astype(np.int32)], 255, cv2.LINE_8, 4)
        if maps is not None:
            covered = np.asarray(cv2.remap(covered, *maps, interpolation=cv2.INTER_LINEAR), np.uint8)
        small = cv2.resize(covered[self._crop], self.plan.size, interpolation=cv2.INTER_AREA)
        return torch.from_numpy(small < 128)

    def rectified(self, image: NDArray[np.uint8]) -> Tensor:
        """(h, w, 3) of whole grey levels on the device, undistorted and cropped."""
        if self._upload is not None:
            return self._upload(image)
        if self._fixed_point_maps is not None:
            image = np.asarray(cv2.remap(image, *self._fixed_point_maps, interpolation=cv2.INTER_LINEAR), np.uint8)
        return torch.from_numpy(image[self._crop])


def _view(camera: CameraImage) -> tuple[Any, ...]:
    """What else than its intrinsics says how a camera's image is changed."""
    return camera.lens, camera.field_of_view_deg, camera.masks


class _Upload:
    """One camera's pinned memory and, for a distorted image, the points at which the device samples it."""

    def __init__(
        self,
        maps: tuple[NDArray, NDArray] | None,
        size: tuple[int, int],
        crop: tuple[slice, slice],
        device: torch.device,
    ) -> None:
        width, height = size
        self._device = device
        self._points = None if maps is None else sampling_points(maps, size, crop).to(device)
        # A rectified image is cropped before the upload, a distorted one is sampled beyond its crop.
        self._part = crop if maps is None else (slice(0, height), slice(0, width))
        rows, columns = (part.stop - part.start for part in self._part)
        self._staging = torch.empty((rows, columns, 3), dtype=torch.uint8, pin_memory=True)
        self._done = torch.cuda.Event()

    def __call__(self, image: NDArray[np.uint8]) -> Tensor:
        self._done.synchronize()  # the last upload, a frame ago, may still be reading
        self._staging.copy_(torch.from_numpy(image[self._part]))
        pixels = self._staging.to(self._device, non_blocking=True)
        self._done.record(torch.cuda.current_stream(self._device))
        return pixels if self._points is None else undistort_on_device(pixels, self._points)


def sampling_points(maps: tuple[NDArray, NDArray], size: tuple[int, int], crop: tuple[slice, slice]) -> Tensor:
    """(1, h, w, 2): where, from -1 to 1 over an image, undistort_on_device looks for each pixel of the crop."""
    columns, rows = (values[crop] for values in maps)
    points = np.stack([(2 * columns + 1) / size[0] - 1, (2 * rows + 1) / size[1] - 1], axis=-1)
    return torch.from_numpy(points.astype(np.float32))[None]


def undistort_on_device(pixels: Tensor, points: Tensor) -> Tensor:
    """Bytes (H, W, 3) -> (h, w, 3) of whole grey levels; cv2.remap differs by what it rounds to 32nds of a pixel."""
    sampled = functional.grid_sample(
        pixels.permute(2, 0, 1)[None].float(), points, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return (sampled[0] + 0.5).floor().permute(1, 2, 0)
