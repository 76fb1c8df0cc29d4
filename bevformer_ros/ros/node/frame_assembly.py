"""From a synchronised set of messages to a SurroundFrame: decoding, calibration, poses."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_ros import TransformException

from bevformer_ros.config import CameraConfig
from bevformer_ros.ros.calibration import UncalibratedError, camera_model
from bevformer_ros.ros.conversions import stamp_to_ns
from bevformer_ros.ros.ego_motion import EgoMotion, StampedFrame
from bevformer_ros.ros.image_decoding import GpuJpegDecoder, decode_image, is_jpeg
from bevformer_ros.ros.node.patience import Waiting
from bevformer_ros.types import MILLISECOND_NS, CameraImage, SurroundFrame


class SetDroppedError(Exception):
    """A set that cannot become a frame. reason: a short word to count it under; the text says what happened."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True)
class ImageSet:
    """What the synchroniser emitted. emitted_at: time.perf_counter() then; one message or None per camera."""

    stamp_ns: int
    messages: tuple[Image | CompressedImage | None, ...]
    emitted_at: float

    def only(self, wanted: Sequence[bool]) -> ImageSet:
        """Without the images of the other cameras."""
        messages = zip(self.messages, wanted, strict=True)
        return replace(self, messages=tuple(message if kept else None for message, kept in messages))

    @property
    def skew_ms(self) -> float:
        """Newest minus oldest image stamp."""
        stamps = [stamp_to_ns(message.header.stamp) for message in self.messages if message is not None]
        return (max(stamps) - min(stamps)) / MILLISECOND_NS if stamps else 0.0


@dataclass
class Stopwatch:
    """Milliseconds per stage, in the order in which the stages ended."""

    started_at: float
    laps: dict[str, float] = field(default_factory=dict)

    def lap(self, stage: str) -> None:
        """The stage ends now; it began where the last one ended."""
        now = time.perf_counter()
        self.laps[stage] = 1000 * (now - self.started_at)
        self.started_at = now


@dataclass(frozen=True)
class AssembledFrame:
    """images: the set without what could not be decoded. faults: why not, camera by camera.

    output_from_bev: (4, 4), from the BEV frame to the frame in which the boxes are wanted, at the stamp.
    """

    images: ImageSet
    faults: tuple[str, ...]
    frame: SurroundFrame
    output_from_bev: NDArray[np.float64]


class FrameAssembler:
    """Runs in one thread, but for set_camera_info, which any thread may call.

    undecodable: how many images were.
    """

    def __init__(
        self,
        cameras: Sequence[CameraConfig],
        minimum_cameras: int,
        ego_motion: EgoMotion,
        patience: Waiting,
        jpeg_decoder: str = "cpu",
    ) -> None:
        """minimum_cameras: so many images of a set must be fit to be decoded. jpeg_decoder: cpu or cuda. Raises
        ValueError where JPEGs cannot be decoded there."""
        self.undecodable = 0
        self._cameras = cameras
        self._minimum_cameras = minimum_cameras
        self._ego_motion = ego_motion
        self._patience = patience
        self._infos: list[CameraInfo | None] = [None] * len(cameras)
        self._gpu_decoder = GpuJpegDecoder() if jpeg_decoder == "cuda" else None
        workers = min(len(cameras), os.cpu_count() or 1)
        self._decoders = ThreadPoolExecutor(workers, thread_name_prefix="image decoder")

    def set_camera_info(self, camera: int, info: CameraInfo) -> None:
        """Holds for every image from now on; it may change while running."""
        self._infos[camera] = info

    def close(self) -> None:
        self._decoders.shutdown()

    def assemble(self, images: ImageSet, stopwatch: Stopwatch) -> AssembledFrame:
        """Raises SetDroppedError with the reason undecodable, no_camera_info, uncalibrated, unusable_camera_info,
        unstamped or no_transform."""
        pixels, faults = self._decode(images)
        images = images.only([image is not None for image in pixels])
        stopwatch.lap("decode_images")
        models = [
            None if image is None else self._camera_model(index, image.shape[1], image.shape[0])
            for index, image in enumerate(pixels)
        ]
        exposures = [
            None if message is None else StampedFrame(message.header.frame_id, stamp_to_ns(message.header.stamp))
            for message in images.messages
        ]
        for camera, exposure in zip(self._cameras, exposures, strict=True):
            if exposure is not None and exposure.stamp_ns == 0:  # which tf takes for "the latest pose"
                raise SetDroppedError("unstamped", f"{camera.name}: the image's stamp is 0; its driver must set it")
        try:
            poses = self._patience.retry(lambda: self._ego_motion.poses(images.stamp_ns, exposures), TransformException)
        except TransformException as error:
            raise SetDroppedError("no_transform", str(error)) from error
        cameras = tuple(
            None
            if exposure is None or image is None or model is None or camera_from_bev is None
            else CameraImage(camera.name, exposure.stamp_ns, image, model[0], camera_from_bev, model[1])
            for camera, exposure, image, model, camera_from_bev in zip(
                self._cameras, exposures, pixels, models, poses.camera_from_bev, strict=True
            )
        )
        stopwatch.lap("wait_for_transforms")
        frame = SurroundFrame(images.stamp_ns, cameras, poses.world_from_bev)
        return AssembledFrame(images, faults, frame, poses.output_from_bev)

    def _decode(self, images: ImageSet) -> tuple[list[NDArray[np.uint8] | None], tuple[str, ...]]:
        """Images, None where there is none, and what was wrong with those that are damaged."""
        if self._gpu_decoder is not None and all(message is None or is_jpeg(message) for message in images.messages):
            # It does not tell which one is damaged; the CPU does.
            with suppress(ValueError):
                return self._gpu_decoder(images.messages), ()
        tasks = [
            None if message is None else self._decoders.submit(decode_image, message) for message in images.messages
        ]
        decoded: list[NDArray[np.uint8] | None] = []
        faults: list[str] = []
        for camera, task in zip(self._cameras, tasks, strict=True):
            try:
                decoded.append(None if task is None else task.result())
            except ValueError as error:
                decoded.append(None)
                faults.append(f"{camera.name}: {error}")
        self.undecodable += len(faults)
        if faults and sum(image is not None for image in decoded) < self._minimum_cameras:
            raise SetDroppedError("undecodable", "; ".join(faults))
        return decoded, tuple(faults)

    def _camera_model(self, index: int, width: int, height: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        camera = self._cameras[index]
        try:
            info = self._patience.retry(lambda: self._camera_info(index), LookupError)
            return camera_model(info, (width, height), camera.rectified)
        except LookupError as error:
            text = f"{camera.name}: no CameraInfo on {camera.camera_info_topic}"
            raise SetDroppedError("no_camera_info", text) from error
        except UncalibratedError as error:
            raise SetDroppedError("uncalibrated", f"{camera.name}: {error}") from error
        except ValueError as error:
            raise SetDroppedError("unusable_camera_info", f"{camera.name}: {error}") from error

    def _camera_info(self, index: int) -> CameraInfo:
        info = self._infos[index]
        if info is None:
            raise LookupError
        return info
