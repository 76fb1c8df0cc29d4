"""Where the network computes and in which arithmetic, where the user leaves either open: `auto`."""

from __future__ import annotations

import logging
import time
from functools import lru_cache
from typing import get_args

import torch
from torch.nn import functional

from bevformer_ros.inference.choices import Precision, PrecisionChoice

LOGGER = logging.getLogger(__name__)

_BFLOAT16_CAPABILITY = (8, 0)  # of CUDA devices: earlier ones emulate it
_PROBE_REPEATS = 5
_PROBE_SECONDS = 0.4  # for each of two kinds
_WORTH_IT = 0.9  # of float32's time


def resolve_device(device: str) -> str:
    """The device that `auto` means here; any other as it is. Raises ValueError for one that is not there."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda") or (index and not (kind == "cuda" and index.isdigit())):
        raise ValueError(f"device is {device!r}, expected auto, cpu, cuda or cuda:N")
    if kind == "cuda":
        _require_gpu(device)
    return device


def _require_gpu(device: str) -> None:
    if not torch.cuda.is_available():
        raise ValueError(f"device is {device}, but torch can use no GPU ({_why_no_gpu()}); set device to cpu or auto")
    count, index = torch.cuda.device_count(), int(device.partition(":")[2] or 0)
    if index >= count:
        names = ", ".join(f"cuda:{each} {torch.cuda.get_device_name(each)}" for each in range(count))
        raise ValueError(f"device is {device}, but there is only {names}")


def _why_no_gpu() -> str:
    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    try:
        torch.cuda.init()
    except RuntimeError as error:  # a driver that is missing or too old says so
        return str(error).strip().splitlines()[0]
    return "no device found"


def resolve_precision(precision: str, device: str) -> Precision:
    """The arithmetic that `auto` means on a device; any other as it is, with one warning where it is a slow choice.

    On a GPU bfloat16 where it has units for it, else float16. On a CPU bfloat16 where oneDNN has kernels for it and
    a short measurement finds them faster, else float32: a CPU without such units takes several times as long in
    bfloat16. Raises ValueError for anything else.
    """
    if precision not in get_args(PrecisionChoice):
        raise ValueError(f"precision is {precision!r}, expected one of {', '.join(get_args(PrecisionChoice))}")
    place = torch.device(device)
    if precision == "auto":
        return _fastest(place)
    if _is_slow(precision, place):
        _warn(precision, device, _fastest(place))
    return precision  # type: ignore[return-value]  # it is one of them


def _fastest(device: torch.device) -> Precision:
    if device.type == "cuda":
        return "bfloat16" if _has_bfloat16(device) else "float16"
    return "bfloat16" if _cpu_gains_from_bfloat16() else "float32"


def _is_slow(precision: str, device: torch.device) -> bool:
    if device.type == "cuda":
        return precision == "bfloat16" and not _has_bfloat16(device)
    return precision == "float16" or (precision == "bfloat16" and not _cpu_gains_from_bfloat16())


@lru_cache
def _warn(precision: str, device: str, faster: str) -> None:
    LOGGER.warning("%s is slow on this %s; %s is the fastest here", precision, device, faster)


def _has_bfloat16(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device) >= _BFLOAT16_CAPABILITY


@lru_cache(maxsize=1)
def _cpu_gains_from_bfloat16() -> bool:
    """Asked once a process: kernels exist also for CPUs without the units, where they are slow."""
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    return _probe(torch.bfloat16) < _WORTH_IT * _probe(torch.float32)


@torch.inference_mode()
def _probe(dtype: torch.dtype) -> float:
    """Seconds of a convolution and a linear layer, the best of a few that fit into a moment."""
    image = torch.ones(1, 64, 56, 56, dtype=dtype).to(memory_format=torch.channels_last)
    kernel = torch.ones(64, 64, 3, 3, dtype=dtype).to(memory_format=torch.channels_last)
    rows, weight = torch.ones(1024, 256, dtype=dtype), torch.ones(256, 256, dtype=dtype)
    best, began = float("inf"), time.perf_counter()
    for _ in range(1 + _PROBE_REPEATS):  # the first one prepares the kernels
        started = time.perf_counter()
        functional.conv2d(image, kernel, padding=1)
        functional.linear(rows, weight)
        ended = time.perf_counter()
        best = min(best, ended - started)
        if ended - began > _PROBE_SECONDS:
            break
    return best
