"""What real cameras add to a clean picture: noise, blur, exposure, colour cast, and a calibration that is a bit off.

All of it follows from the world's seed, the camera's name and the stamp.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, fields, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from bevformer_ros import geometry
from bevformer_ros.simulation.rig import SimulatedCamera
from bevformer_ros.types import SECOND_NS

_GAIN_PERIODS = (4.0, 12.0)  # seconds


@dataclass(frozen=True)
class SensorConfig:
    """How far cameras are from perfect; zero is perfect."""

    noise: float = 0.0
    """Standard deviation in grey levels of 255, in every pixel and channel."""
    defocus: float = 0.0
    """Pixels: each camera's Gaussian blur has a standard deviation of up to this."""
    motion_blur: float = 0.0
    """Pixels: each picture is smeared sideways over up to this."""
    gain: float = 0.0
    """A camera's brightness swings slowly by up to this share."""
    colour_cast: float = 0.0
    """Standard deviation of a camera's three channel gains."""
    rotation: float = 0.0
    """Degrees: standard deviation of the published calibration about the true one, fixed for a camera in a world."""
    translation: float = 0.0
    """Metres, in the same way."""
    focal: float = 0.0
    """Share of the focal length, in the same way."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 0:
                raise ValueError(f"{field.name} is {getattr(self, field.name)}, expected 0 (off) or more")


PERFECT = SensorConfig()


def published(camera: SimulatedCamera, sensor: SensorConfig, world_seed: int) -> SimulatedCamera:
    """The camera as its calibration describes it."""
    if sensor.rotation == sensor.translation == sensor.focal == 0:
        return camera
    random = _random(world_seed, camera, 0)
    rotation = np.deg2rad(sensor.rotation) * random.standard_normal(3)
    error = geometry.transform_from_rpy(sensor.translation * random.standard_normal(3), rotation)
    intrinsics = camera.intrinsics.copy()
    intrinsics[[0, 1], [0, 1]] *= 1 + sensor.focal * random.standard_normal()
    return replace(camera, intrinsics=intrinsics, base_from_camera=camera.base_from_camera @ error)


def expose(
    image: NDArray[np.uint8], camera: SimulatedCamera, sensor: SensorConfig, world_seed: int, stamp_ns: int
) -> NDArray[np.uint8]:
    """The BGR picture (H, W, 3) that the sensor makes of a clean one."""
    if sensor == replace(PERFECT, rotation=sensor.rotation, translation=sensor.translation, focal=sensor.focal):
        return image
    of_camera, of_picture = _random(world_seed, camera, 1), _random(world_seed, camera, stamp_ns)
    defocus, gains = sensor.defocus * of_camera.random(), _gains(of_camera, sensor, stamp_ns)
    smear = sensor.motion_blur * of_picture.random()
    light = image.astype(np.float32)
    if defocus > 0:
        light = np.asarray(cv2.GaussianBlur(light, (0, 0), defocus), np.float32)
    if smear > 0:
        light = np.asarray(cv2.filter2D(light, -1, _line(smear)), np.float32)
    light *= gains
    if sensor.noise > 0:
        light += np.float32(sensor.noise) * of_picture.standard_normal(light.shape, np.float32)
    return np.clip(np.rint(light, out=light), 0, 255, out=light).astype(np.uint8)


def _random(world_seed: int, camera: SimulatedCamera, what: int) -> np.random.Generator:
    return np.random.default_rng([world_seed, zlib.crc32(camera.name.encode()), what])


def _gains(random: np.random.Generator, sensor: SensorConfig, stamp_ns: int) -> NDArray[np.float32]:
    """(3,) by channel."""
    period_ns, phase = random.uniform(*_GAIN_PERIODS) * SECOND_NS, random.random()
    brightness = (1 + sensor.gain) ** np.sin(2 * np.pi * (stamp_ns % period_ns / period_ns + phase))
    cast = np.exp(sensor.colour_cast * random.standard_normal(3))
    return (brightness * cast).astype(np.float32)


def _line(length: float) -> NDArray[np.float32]:
    """A (1, k) kernel that averages over `length` pixels more than one."""
    reach = int(np.ceil(length / 2))
    distances = np.abs(np.arange(-reach, reach + 1))
    weights = np.clip(length / 2 + 0.5 - distances, 0.0, 1.0)
    return (weights / weights.sum()).astype(np.float32)[None]
