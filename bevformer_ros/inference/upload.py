"""The way from the host to the device."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def upload(array: NDArray[np.generic], device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A small array on the device, in another type if one is given, without waiting for a GPU."""
    tensor = torch.from_numpy(array).to(dtype)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
