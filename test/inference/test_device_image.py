from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from bevformer_ros.inference.device_image import DeviceImage
from bevformer_ros.types import CameraImage

PIXELS = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)


class Counting:
    """A tensor that counts how often it is downloaded."""

    def __init__(self) -> None:
        self.tensor, self.shape, self.downloads = torch.from_numpy(PIXELS), PIXELS.shape, 0

    def cpu(self) -> torch.Tensor:
        self.downloads += 1
        return self.tensor


def test_it_comes_to_the_host_once_and_only_when_asked() -> None:
    pixels = Counting()
    image = DeviceImage(pixels)
    assert (image.shape, image.ndim, image.dtype, pixels.downloads) == ((6, 8, 3), 3, np.uint8, 0)
    for _ in range(2):
        np.testing.assert_array_equal(np.asarray(image), PIXELS)
    assert np.asarray(image, np.float32).dtype == np.float32
    assert pixels.downloads == 1


def test_a_camera_takes_it_for_its_image() -> None:
    image: Any = DeviceImage(torch.from_numpy(PIXELS))
    camera = CameraImage("CAM_FRONT", 0, image, np.diag([5.0, 5.0, 1.0]), np.eye(4)).cropped((1, 2, 7, 6))
    assert isinstance(camera.image, DeviceImage)
    np.testing.assert_array_equal(camera.image, PIXELS[2:6, 1:7])
    image = DeviceImage(torch.zeros(6, 8))
    with pytest.raises(ValueError, match="CAM_FRONT: image has shape"):
        CameraImage("CAM_FRONT", 0, image, np.diag([5.0, 5.0, 1.0]), np.eye(4))
