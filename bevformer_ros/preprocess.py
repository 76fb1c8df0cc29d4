"""From camera images of any size to the network's input, image and intrinsics together.

The exact path (numpy and Pillow, whose bicubic resize defines equality) is the official evaluation pipeline bit for
bit. The device path (torch) does the same work where the network runs; after a resize at most 1 % of its values are
off by one grey level, single ones by two; without a resize none.

Intrinsics follow the official rule u' = scale * (u - crop): half a pixel of the resize is not accounted for.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from bevformer_ros.model.config import ImageConfig
from bevformer_ros.types import CameraImage, SurroundFrame

# Numbers of plumb_bob and rational_polynomial coefficients, with OpenCV's thin-prism and tilt extensions.
_DISTORTION_LENGTHS = (4, 5, 8, 12, 14)


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


def resize(image: NDArray[np.uint8], plan: ImagePlan) -> NDArray[np.uint8]:
    """Exact path: crop, resize (Pillow's bicubic defines the result) and mirror an image (H, W, 3)."""
    resized = Image.fromarray(image).crop(plan.crop)
    if resized.size != plan.size:
        resized = resized.resize(plan.size, Image.Resampling.BICUBIC)
    array = np.asarray(resized)
    return array[:, ::-1] if plan.mirror else array


def normalise(image: NDArray[np.uint8], config: ImageConfig, padded_size: tuple[int, int]) -> NDArray[np.float32]:
    """Exact path: image (h, w, 3) minus mean over deviation, padded with zeros to (3, H, W), padded_size = (W, H)."""
    width, height = padded_size
    result = np.zeros((3, height, width), np.float32)
    mean, deviation = np.array(config.mean, np.float32), np.array(config.deviation, np.float32)
    result[:, : image.shape[0], : image.shape[1]] = ((image.astype(np.float32) - mean) / deviation).transpose(2, 0, 1)
    return result


def resize_on_device(image: Tensor, plan: ImagePlan) -> Tensor:
    """Device path of `resize`: uint8 (H, W, 3), already cropped -> float32 (3, h, w) of whole grey levels."""
    pixels = image.permute(2, 0, 1).float()
    width, height = plan.size
    # Like Pillow: first along the rows, then along the columns, whole grey levels in between.
    for size in ((pixels.shape[1], width), (height, width)):
        if pixels.shape[1:] != size:
            pixels = functional.interpolate(pixels[None], size, mode="bicubic", antialias=True)[0]
            pixels = (pixels + 0.5).floor().clamp(0, 255)
    return pixels.flip(-1) if plan.mirror else pixels


@dataclass(frozen=True)
class NetworkInput:
    """One surround frame as the network takes it. B is 1, N cameras in the order of the rig.

    images: (1, N, 3, H, W) normalised. camera_valid: (1, N) bool. Geometry stays on the host in float64, because
    history composes it with later poses: intrinsics (N, 3, 3) in pixels of the input, camera_from_bev (N, 4, 4);
    identity where a camera is missing.
    """

    images: Tensor
    camera_valid: Tensor
    intrinsics: NDArray[np.float64]
    camera_from_bev: NDArray[np.float64]

    @property
    def image_from_bev(self) -> NDArray[np.float64]:
        """(N, 4, 4): intrinsics times camera_from_bev; the official lidar2img."""
        return image_from_bev(self.intrinsics, self.camera_from_bev)


def image_from_bev(intrinsics: NDArray[np.float64], camera_from_bev: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., 4, 4) homogeneous projection: rows u*depth, v*depth, depth, 1."""
    result = np.array(camera_from_bev, dtype=np.float64)
    result[..., :3, :] = intrinsics @ result[..., :3, :]
    return result


class Preprocessor:
    """Turns surround frames into network input; keeps what depends on the calibration alone.

    On the CPU the exact path is used, on an accelerator the device path, fed from pinned memory.
    """

    def __init__(self, config: ImageConfig, device: torch.device) -> None:
        self._config = config
        self._device = device
        self._mean = torch.tensor(config.mean, device=device).view(3, 1, 1)
        self._deviation = torch.tensor(config.deviation, device=device).view(3, 1, 1)
        self._cameras: list[_CameraSlot | None] = []

    def __call__(self, frame: SurroundFrame) -> NetworkInput:
        """Raises ValueError where a distortion or an image size cannot be handled."""
        if len(self._cameras) != len(frame.cameras):
            self._cameras = [None] * len(frame.cameras)
        count, (width, height) = len(frame.cameras), self._config.padded_size
        images = torch.zeros(1, count, 3, height, width, device=self._device)
        intrinsics, camera_from_bev = np.tile(np.eye(3), (count, 1, 1)), np.tile(np.eye(4), (count, 1, 1))
        for index, camera in enumerate(frame.cameras):
            if camera is None:
                continue
            slot = self._slot(index, camera)
            self._fill(images[0, index], slot, slot.undistorted(camera.image))
            intrinsics[index], camera_from_bev[index] = slot.intrinsics, camera.camera_from_bev
        valid = torch.tensor([[camera is not None for camera in frame.cameras]], device=self._device)
        return NetworkInput(images, valid, intrinsics, camera_from_bev)

    def _slot(self, index: int, camera: CameraImage) -> _CameraSlot:
        slot = self._cameras[index]
        if slot is None or not slot.serves(camera):
            slot = self._cameras[index] = _CameraSlot(camera, self._config, self._device)
        return slot

    def _fill(self, target: Tensor, slot: _CameraSlot, image: NDArray[np.uint8]) -> None:
        plan = slot.plan
        if slot.staging is None:
            target.copy_(torch.from_numpy(normalise(resize(image, plan), self._config, self._config.padded_size)))
            return
        left, top, right, bottom = plan.crop
        slot.uploaded.synchronize()  # the last upload may still be reading
        slot.staging.copy_(torch.from_numpy(image[top:bottom, left:right]))
        pixels = resize_on_device(slot.staging.to(self._device, non_blocking=True), plan)
        slot.uploaded.record()
        target[:, : plan.size[1], : plan.size[0]] = (pixels - self._mean) / self._deviation


class _CameraSlot:
    """What one camera's calibration and image size determine: plan, intrinsics, rectification, upload buffer."""

    def __init__(self, camera: CameraImage, config: ImageConfig, device: torch.device) -> None:
        height, width = camera.image.shape[:2]
        self._size = (width, height)
        self._calibration = (camera.intrinsics.copy(), camera.distortion.copy())
        self.plan = ImagePlan.for_size(config, width, height)
        self.intrinsics = self.plan.intrinsics(camera.intrinsics)
        self._maps = _rectification(camera)
        left, top, right, bottom = self.plan.crop
        self.staging: Tensor | None = None
        if device.type == "cuda":
            self.staging = torch.empty((bottom - top, right - left, 3), dtype=torch.uint8, pin_memory=True)
            self.uploaded = torch.cuda.Event()

    def serves(self, camera: CameraImage) -> bool:
        intrinsics, distortion = self._calibration
        return (
            camera.image.shape[1::-1] == self._size
            and np.array_equal(camera.intrinsics, intrinsics)
            and np.array_equal(camera.distortion, distortion)
        )

    def undistorted(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self._maps is None:
            return image
        columns, rows = self._maps
        return cv2.remap(image, columns, rows, interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)


def _rectification(camera: CameraImage) -> tuple[NDArray, NDArray] | None:
    """Maps for cv2.remap that undo the distortion and keep the intrinsics; None for a rectified image."""
    if not camera.distortion.any():
        return None
    if len(camera.distortion) not in _DISTORTION_LENGTHS:
        raise ValueError(
            f"{camera.name}: {len(camera.distortion)} distortion coefficients, expected one of {_DISTORTION_LENGTHS} "
            "(plumb_bob or rational_polynomial); rectify images of other lens models first"
        )
    height, width = camera.image.shape[:2]
    return cv2.initUndistortRectifyMap(
        camera.intrinsics, camera.distortion, np.eye(3), camera.intrinsics, (width, height), cv2.CV_16SC2
    )
