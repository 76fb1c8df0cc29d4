"""A GPU that computes like the CPU, because it is the CPU: what is written for CUDA runs, with real values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map


class Event:
    """Of a device that does everything at once."""

    def __init__(self, enable_timing: bool = False) -> None: ...

    def record(self, stream: object = None) -> None: ...

    def synchronize(self) -> None: ...


class PretendedGpu(TorchFunctionMode):
    """Enter it. pinned: how often memory was pinned."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.pinned = 0
        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: None)

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        args, kwargs = tree_map(_on_cpu, (args, dict(kwargs or {})))
        self.pinned += bool(kwargs.pop("pin_memory", False)) or function is torch.Tensor.pin_memory
        return args[0] if function is torch.Tensor.pin_memory else function(*args, **kwargs)


def _on_cpu(argument: object) -> object:
    return torch.device("cpu") if isinstance(argument, torch.device) else argument
