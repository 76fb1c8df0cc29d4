"""From a synchronized set of messages to a SurroundFrame: decoding, calibration, poses."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from bevformer_ros import geometry
from bevformer_ros.config import CameraConfig
from bevformer_ros.inference.image_plan import decoding_reduction
from bevformer_ros.lens import Lens, virtual_pinhole
from bevformer_ros.model.config import ImageConfig
from bevformer_ros.ros.calibration import (
    UncalibratedError,
    WrongImageSizeError,
    camera_model,
    check_parts,
    check_pixel_count,
)
from bevformer_ros.ros.conversions import stamp_to_ns
from bevformer_ros.ros.ego_motion import EgoMotion, StampedFrame
from bevformer_ros.ros.image_decoding import BgrImage, GpuJpegDecoder, decode_image, image_size, is_jpeg
from bevformer_ros.ros.messages import CameraInfo, CompressedImage, Image
from bevformer_ros.ros.node.camera_health import CameraFault
from bevformer_ros.ros.node.patience import Waiting
from bevformer_ros.ros.transform_tree import NoTransformError
from bevformer_ros.stage_clock import StageClock
from bevformer_ros.types import MILLISECOND_NS, CameraImage, SurroundFrame

LOGGER = logging.getLogger(__name__)

Message: TypeAlias = Image | CompressedImage
Matrix = NDArray[np.float64]
Value = TypeVar("Value")

# A camera that others can do without is waited for in one of so many sets, once it has failed.
_PATIENT_EVERY = 10


class SetDroppedError(Exception):
    """A set that cannot become a frame. reason: a short word to count it under; the text says what happened.

    faults: of the cameras that are to blame.
    """

    def __init__(self, reason: str, text: str, faults: tuple[CameraFault, ...] = ()) -> None:
        super().__init__(text)
        self.reason, self.faults = reason, faults


@dataclass(frozen=True)
class SynchronizedSet:
    """What the synchronizer emitted: one message or None per camera of the rig. clock: runs since then."""

    stamp_ns: int
    messages: tuple[Message | None, ...]
    clock: StageClock = field(default_factory=StageClock)

    def only(self, wanted: Sequence[bool]) -> SynchronizedSet:
        """Without the images of the other cameras."""
        messages = zip(self.messages, wanted, strict=True)
        return replace(self, messages=tuple(message if kept else None for message, kept in messages))

    @property
    def skew_ms(self) -> float:
        """Newest minus oldest image stamp."""
        stamps = [stamp_to_ns(message.header.stamp) for message in self.messages if message is not None]
        return (max(stamps) - min(stamps)) / MILLISECOND_NS if stamps else 0.0


@dataclass(frozen=True)
class AssembledFrame:
    """images: the set without what could not be used. faults: why not, camera by camera.

    output_from_bev: (4, 4), from the BEV frame to the frame in which the boxes are wanted, at the stamp.
    """

    images: SynchronizedSet
    faults: tuple[CameraFault, ...]
    frame: SurroundFrame
    output_from_bev: Matrix


class FrameAssembler:
    """Any defect of a camera is that camera's: a set goes on without it where enough others remain.

    Runs in one thread, but for set_camera_info, which any thread may call. undecodable: how many images were.
    decoded_on_cpu: sets of which a GPU should have decoded the JPEGs and did not.
    """

    def __init__(
        self,
        cameras: Sequence[CameraConfig],
        minimum_cameras: int,
        maximum_pixel_ratio: float,
        ego_motion: EgoMotion,
        patience: Waiting,
        jpeg_device: str = "cpu",
        network_image: ImageConfig | None = None,
    ) -> None:
        """minimum_cameras: a set with fewer usable images is dropped. maximum_pixel_ratio: an image of more than so
        many times the pixels that its CameraInfo describes is not decoded. jpeg_device: that decodes JPEGs, cpu or a
        CUDA device. network_image: what the images are for; the CPU decodes a JPEG at half or quarter size where that
        suffices, and in full where it is None. Raises ValueError where JPEGs cannot be decoded there."""
        self._network_image = network_image
        self.undecodable = self.decoded_on_cpu = 0
        self._cameras = cameras
        self._minimum_cameras = minimum_cameras
        self._maximum_pixel_ratio = maximum_pixel_ratio
        self._ego_motion = ego_motion
        self._patience = patience
        self._infos: list[CameraInfo | None] = [None] * len(cameras)
        self._sets = 0
        self._given_up: set[int] = set()
        self._gpu_is_wanted = jpeg_device != "cpu"
        self._gpu_decoder = GpuJpegDecoder(jpeg_device) if self._gpu_is_wanted else None
        workers = min(len(cameras), os.cpu_count() or 1)
        self._decoders = ThreadPoolExecutor(workers, thread_name_prefix="image decoder")

    def set_camera_info(self, camera: int, info: CameraInfo) -> None:
        """Holds for every image from now on; it may change while running."""
        self._infos[camera] = info

    def close(self) -> None:
        self._decoders.shutdown()

    def assemble(self, images: SynchronizedSet) -> AssembledFrame:
        """Calibrate, decode and place the images of a set. Raises SetDroppedError where too few can be used.

        Headers and calibration come first: what they refuse must not cost the memory of an image.
        """
        self._sets += 1
        sieve = _Sieve(self._cameras, images)
        sizes = self._read_headers(sieve)
        self._require(sieve)
        models = self._calibrate(sieve, sizes)
        self._require(sieve)
        reductions = {index: self._reduction(index, sizes[index], models[index]) for index, _ in sieve.usable()}
        pixels = self._decode(sieve, reductions)
        self._require(sieve)
        images.clock.mark("decode_images")
        try:
            world_from_bev, output_from_bev = self._patience.retry(
                lambda: (
                    self._ego_motion.world_from_bev(images.stamp_ns),
                    self._ego_motion.output_from_bev(images.stamp_ns),
                ),
                NoTransformError,
            )
        except NoTransformError as error:
            raise SetDroppedError("no_transform", self._ego_motion.explain(error)) from error
        poses = self._place(sieve)
        self._given_up = set(sieve.faults)
        self._require(sieve)
        images.clock.mark("wait_for_transforms")
        cameras: list[CameraImage | None] = [None] * len(self._cameras)
        for index, message in sieve.usable():
            reduction = round(sizes[index][0] / pixels[index].shape[1])
            (intrinsics, lens), config = models[index], self._cameras[index]
            camera = CameraImage(
                config.name,
                stamp_to_ns(message.header.stamp),
                pixels[index],
                geometry.scaled_intrinsics(intrinsics, 1 / reduction),
                poses[index],
                lens,
                config.field_of_view_deg,
                geometry.scaled_pixels(config.masks, 1 / reduction),
            )
            cameras[index] = camera.cropped(_reduced(config.crop, reduction))
        frame = SurroundFrame(images.stamp_ns, tuple(cameras), world_from_bev)
        used = images.only([camera is not None for camera in cameras])
        return AssembledFrame(used, tuple(sieve.faults.values()), frame, output_from_bev)

    def _require(self, sieve: _Sieve) -> None:
        if sieve.faults and len(sieve.usable()) < self._minimum_cameras:
            self._given_up = set(sieve.faults)
            faults = tuple(sieve.faults.values())
            text = "; ".join(f"{fault.camera}: {fault.text}" for fault in faults)
            raise SetDroppedError(faults[0].reason, text, faults)

    def _read_headers(self, sieve: _Sieve) -> dict[int, tuple[int, int]]:
        """Width and height of the images."""
        sizes: dict[int, tuple[int, int]] = {}
        for index, message in sieve.usable():
            if stamp_to_ns(message.header.stamp) == 0:  # which tf takes for "the latest pose"
                sieve.leave_out(index, "unstamped", "the image's stamp is 0; its driver must set it")
                continue
            try:
                sizes[index] = image_size(message)
            except ValueError as error:
                self._leave_out_undecodable(sieve, index, error)
        return sizes

    def _leave_out_undecodable(self, sieve: _Sieve, index: int, error: ValueError) -> None:
        self.undecodable += 1
        sieve.leave_out(index, "undecodable", str(error))

    def _reduction(self, index: int, size: tuple[int, int], model: tuple[Matrix, Lens]) -> int:
        """By what the image may be decoded smaller."""
        if self._network_image is None:
            return 1
        camera, intrinsics = self._cameras[index], model[0]
        left, top, right, bottom = camera.crop or (0, 0, *size)
        pinhole = virtual_pinhole(intrinsics, right - left, camera.field_of_view_deg)
        magnification = float(pinhole[0, 0] / intrinsics[0, 0])
        return decoding_reduction(self._network_image, (right - left, bottom - top), magnification)

    def _decode(self, sieve: _Sieve, reductions: dict[int, int]) -> dict[int, Any]:
        """Arrays, and images on the GPU."""
        usable = dict(sieve.usable())
        jpegs = {index: message for index, message in usable.items() if self._gpu_is_wanted and is_jpeg(message)}
        images, refusal = self._decode_on_gpu(jpegs)
        others = {index: message for index, message in usable.items() if index not in images}
        images.update(self._decode_on_cpu(sieve, others, reductions))
        self.decoded_on_cpu += bool(refusal)
        if self._gpu_decoder is not None and refusal and len(images) == len(usable):  # else some image is damaged
            LOGGER.warning("decoding JPEGs on the CPU from now on, which can decode what the GPU cannot: %s", refusal)
            self._gpu_decoder = None
        return images

    def _decode_on_gpu(self, jpegs: dict[int, Message]) -> tuple[dict[int, Any], str]:
        """All, or none and why: the decoder does not tell which one is damaged; the CPU's does."""
        if not jpegs:
            return {}, ""
        if self._gpu_decoder is None:
            return {}, "as said"
        try:
            return dict(zip(jpegs, self._gpu_decoder(list(jpegs.values())), strict=True)), ""
        except ValueError as error:
            return {}, str(error)

    def _decode_on_cpu(
        self, sieve: _Sieve, usable: dict[int, Message], reductions: dict[int, int]
    ) -> dict[int, BgrImage]:
        tasks = {
            index: self._decoders.submit(decode_image, message, reductions[index]) for index, message in usable.items()
        }
        pixels: dict[int, BgrImage] = {}
        for index, task in tasks.items():
            try:
                pixels[index] = task.result()
            except ValueError as error:
                self._leave_out_undecodable(sieve, index, error)
        return pixels

    def _calibrate(self, sieve: _Sieve, sizes: dict[int, tuple[int, int]]) -> dict[int, tuple[Matrix, Lens]]:
        """Intrinsics and lens."""
        infos, missing = self._wait_for(sieve, self._camera_info, LookupError)
        for index in missing:
            camera = self._cameras[index]
            topic = f"{camera.camera_info_topic} (cameras.{camera.name}.camera_info_topic)"
            sieve.leave_out(index, "no_camera_info", f"no CameraInfo on {topic}; publish one with the images")
        models: dict[int, tuple[Matrix, Lens]] = {}
        for index, info in infos.items():
            rectified = self._cameras[index].rectified
            try:
                check_pixel_count(info, sizes[index], self._maximum_pixel_ratio, rectified)
            except ValueError as error:
                self._leave_out_undecodable(sieve, index, error)
                continue
            try:
                check_parts(self._cameras[index], sizes[index])
                models[index] = camera_model(info, sizes[index], rectified)
            except ValueError as error:
                sieve.leave_out(index, _calibration_fault(error), str(error))
        return models

    def _camera_info(self, index: int) -> CameraInfo:
        info = self._infos[index]
        if info is None:
            raise LookupError
        return info

    def _place(self, sieve: _Sieve) -> dict[int, Matrix]:
        """camera_from_bev."""
        exposures = {
            index: StampedFrame(message.header.frame_id, stamp_to_ns(message.header.stamp))
            for index, message in sieve.usable()
        }
        reference_ns = sieve.images.stamp_ns
        found, missing = self._wait_for(
            sieve, lambda index: self._ego_motion.camera_from_bev(exposures[index], reference_ns), NoTransformError
        )
        for index, error in missing.items():
            assert isinstance(error, NoTransformError)
            sieve.leave_out(index, "no_transform", self._ego_motion.explain(error, exposures[index].frame_id))
        return found

    def _wait_for(
        self, sieve: _Sieve, get: Callable[[int], Value], late: type[Exception]
    ) -> tuple[dict[int, Value], dict[int, Exception]]:
        """Of every usable camera what get() gives, or the error that it last raised. All are waited for together."""
        indices = [index for index, _ in sieve.usable()]
        hopeful = [index for index in indices if index not in self._given_up]
        patient = len(hopeful) < self._minimum_cameras or self._sets % _PATIENT_EVERY == 0
        found: dict[int, Value] = {}
        missing: dict[int, Exception] = {}

        def attempt() -> None:
            for index in indices:
                if index not in found:
                    try:
                        found[index] = get(index)
                        missing.pop(index, None)
                    except late as error:
                        missing[index] = error
            awaited = [error for index, error in missing.items() if patient or index in hopeful]
            if awaited:
                raise awaited[0]

        with suppress(late):
            self._patience.retry(attempt, late)
        return found, missing


def _calibration_fault(error: ValueError) -> str:
    if isinstance(error, UncalibratedError):
        return "uncalibrated"
    return "wrong_size" if isinstance(error, WrongImageSizeError) else "unusable_camera_info"


def _reduced(crop: tuple[int, int, int, int] | None, reduction: int) -> tuple[int, int, int, int] | None:
    """The whole pixels of a smaller image that lie in a crop of the larger one."""
    if crop is None:
        return None
    left, top, right, bottom = crop
    return -(-left // reduction), -(-top // reduction), right // reduction, bottom // reduction


class _Sieve:
    """The images of one set, of which those with a fault are left out. faults: by index of the camera."""

    def __init__(self, cameras: Sequence[CameraConfig], images: SynchronizedSet) -> None:
        self.images = images
        self.faults: dict[int, CameraFault] = {}
        self._cameras = cameras

    def usable(self) -> list[tuple[int, Message]]:
        return [
            (index, message)
            for index, message in enumerate(self.images.messages)
            if message is not None and index not in self.faults
        ]

    def leave_out(self, index: int, reason: str, text: str) -> None:
        self.faults[index] = CameraFault(self._cameras[index].name, reason, text)
