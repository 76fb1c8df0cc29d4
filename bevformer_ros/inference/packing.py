"""The way from the device to the host: all results of a frame as the bytes of one tensor, in one copy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_NUMPY = {torch.float32: np.float32, torch.int64: np.int64, torch.bool: np.bool_}


class Packed(NamedTuple):
    """content: (bytes,) uint8. layout: type and shape of the tensors that lie in it, one after the other."""

    content: Tensor
    layout: tuple[tuple[torch.dtype, torch.Size], ...]


def pack(tensors: Iterable[Tensor]) -> Packed:
    """Tensors of one device; their values stay as they are to the bit."""
    given = tuple(tensors)
    content = torch.cat([tensor.reshape(-1).view(torch.uint8) for tensor in given])
    return Packed(content, tuple((tensor.dtype, tensor.shape) for tensor in given))


class Download:
    """Fetches what was packed on one device; from a GPU into pinned memory, and the host waits once."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._staging = torch.empty(0, dtype=torch.uint8)

    def __call__(self, packed: Packed) -> list[NDArray[Any]]:
        content = packed.content.numpy() if self._device.type == "cpu" else self._fetched(packed.content)
        offset = 0
        arrays: list[NDArray[Any]] = []
        for dtype, shape in packed.layout:
            arrays.append(np.ndarray(tuple(shape), _NUMPY[dtype], content, offset))
            offset += arrays[-1].nbytes
        return arrays

    def _fetched(self, content: Tensor) -> NDArray[np.uint8]:
        """A copy, since the pinned memory serves the next frame too."""
        if self._staging.shape != content.shape:
            self._staging = torch.empty(content.shape, dtype=torch.uint8, pin_memory=True)
        self._staging.copy_(content, non_blocking=True)
        torch.cuda.current_stream(self._device).synchronize()
        return self._staging.numpy().copy()
