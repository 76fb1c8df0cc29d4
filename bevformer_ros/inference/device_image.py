"""An image that was decoded on a GPU and stays there."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class DeviceImage:
    """Stands in for the array of a CameraImage. For whoever asks for its values (`np.asarray`) it comes to the host,
    once.

    pixels: torch's tensor, (H, W, 3) uint8, BGR, made in TemporalDetector.preparing().
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, pixels: Any) -> None:
        self.pixels = pixels
        self._on_host: NDArray[np.uint8] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.pixels.shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, part: tuple[slice, slice]) -> DeviceImage:
        return DeviceImage(self.pixels[part])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if self._on_host is None:
            self._on_host = self.pixels.cpu().numpy()
        return self._on_host if dtype is None else self._on_host.astype(dtype, copy=bool(copy))
