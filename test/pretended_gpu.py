"""A GPU that computes like the CPU, because it is the CPU: what is written for CUDA runs, with real values.

It also finds races. Streams are only kept apart in the books: every operation on the device notes what it reads and
writes, and whoever comes next must have waited, by events and by the order of its stream, for those before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_DEVICE_OF = Tensor.device.__get__
# How much of each stream's work is known to be done; by the stream's name.
Clock = dict[str, int]
HOST = "host"


def merge(into: Clock, other: Clock) -> None:
    for name, count in other.items():
        into[name] = max(into.get(name, 0), count)


class RaceError(AssertionError):
    pass


@dataclass
class Accesses:
    """Of one piece of memory, the last ones: a stream's name and how much it had done then. owner: the stream that took
    it, and may take it again when it is free."""

    on_device: bool
    owner: str = HOST
    written: tuple[str, int] = (HOST, 0)
    read: Clock = field(default_factory=dict)


class Stream:
    def __init__(self, gpu: PretendedGpu, name: str) -> None:
        self.gpu, self.name, self.done = gpu, name, Clock()

    def wait_event(self, event: Event) -> None:
        merge(self.done, event.done)

    def synchronize(self) -> None:
        merge(self.gpu.host, self.done)
        self.gpu.waits += 1


class Event:
    """Recorded on nothing, it has passed, as CUDA's has."""

    def __init__(self, gpu: PretendedGpu) -> None:
        self.gpu, self.done = gpu, Clock()

    def record(self, stream: Stream) -> None:
        self.done = dict(stream.done)

    def synchronize(self) -> None:
        merge(self.gpu.host, self.done)

    def query(self) -> bool:
        """Whether the host knows that it passed: a slow GPU says no to all else."""
        return all(self.gpu.host.get(name, 0) >= count for name, count in self.done.items())

    def elapsed_time(self, other: Event) -> float:
        return 1.0


class PretendedGpu(TorchFunctionMode):
    """Enter it. pinned: how often memory was pinned. waits: how often the host waited for a whole stream.

    Whatever is made there, and on "cuda", is on the device; so is what operations make of it.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.pinned = self.waits = 0
        self.host, self.memory = Clock(), dict[int, Accesses]()
        self.default = self.current = Stream(self, "default")
        self._made_there = False
        self._bookkeeper = _Bookkeeper(self)
        made = iter(range(1000))
        monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing=False: Event(self))
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(self, f"stream {next(made)}"))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: self.current)
        monkeypatch.setattr(torch.cuda, "stream", self._on)
        monkeypatch.setattr(torch, "from_numpy", partial(self._from_numpy, torch.from_numpy))

    def _from_numpy(self, from_numpy: Callable[[Any], Tensor], array: Any) -> Tensor:
        tensor = from_numpy(array)
        self.memory.pop(_address(tensor), None)  # what is known of a tensor that is gone
        return tensor

    @contextmanager
    def _on(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    def __enter__(self) -> PretendedGpu:
        super().__enter__()
        self._bookkeeper.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._bookkeeper.__exit__(*error)
        super().__exit__(*error)

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function == _DEVICE_OF:
            return torch.device("cuda") if self._is_there(args[0]) else torch.device("cpu")
        named = dict(kwargs or {})
        there = any(isinstance(value, torch.device) and value.type == "cuda" for value in (*args, *named.values()))
        args, named = tuple(map(_on_cpu, args)), {name: _on_cpu(value) for name, value in named.items()}
        pin = bool(named.pop("pin_memory", False)) or function is Tensor.pin_memory
        self.pinned += pin
        if function is Tensor.pin_memory:
            return args[0].clone()
        if function is Tensor.to and there:
            return self._uploaded(args[0], *args[1:], **named)
        if function is Tensor.cpu:
            return self._downloaded(args[0])
        if function is Tensor.numpy:
            self._check_host_read(args[0])
        before, self._made_there = self._made_there, self._made_there or there
        try:
            return function(*args, **named)
        finally:
            self._made_there = before

    def _uploaded(self, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self._is_there(tensor):
            return tensor.to(*args, **kwargs)
        self._made_there = True
        try:
            moved = tensor.to(*args, **{**kwargs, "copy": True})
        finally:
            self._made_there = False
        if not kwargs.get("non_blocking"):
            merge(self.host, self.current.done)
        return moved

    def _downloaded(self, tensor: Tensor) -> Tensor:
        if not self._is_there(tensor):
            return tensor
        copied = tensor.clone()
        self.memory[_address(copied)] = Accesses(False)
        merge(self.host, self.current.done)
        return copied

    def _check_host_read(self, tensor: Tensor) -> None:
        accesses = self.memory.get(_address(tensor))
        if accesses is not None:
            self._require("the host reads", accesses.written, self.host)

    def _is_there(self, tensor: Tensor) -> bool:
        accesses = self.memory.get(_address(tensor))
        return accesses is not None and accesses.on_device

    def note(self, what: str, read: list[Tensor], written: list[Tensor]) -> None:
        """An operation, on the device if anything of it is there, else of the host, which works at once."""
        on_device = self._made_there or any(self._is_there(tensor) for tensor in (*read, *written))
        now = dict(self.host)
        if on_device:
            self.current.done[self.current.name] = self.current.done.get(self.current.name, 0) + 1
            merge(now, self.current.done)
            self.current.done = now
        place = (self.current.name, now[self.current.name]) if on_device else (HOST, 0)
        for tensor in read:
            accesses = self.memory.get(_address(tensor))
            if accesses is not None:
                self._require(f"{what} reads", accesses.written, now)
                merge(accesses.read, dict([place]))
        for tensor in written:
            accesses = self.memory.get(_address(tensor))
            if accesses is not None:
                for other in (accesses.written, *accesses.read.items()):
                    self._require(f"{what} writes", other, now)
                accesses.written, accesses.read = place, {}

    def note_new(self, tensor: Tensor, read: list[Tensor]) -> None:
        """After note() of the operation that made it."""
        on_device = self._made_there or any(self._is_there(source) for source in read)
        if not on_device:
            self.memory[_address(tensor)] = Accesses(False)
            return
        before, now = self.memory.get(_address(tensor)), {**self.host, **self.current.done}
        if before is not None and before.owner == self.current.name:
            for other in (before.written, *before.read.items()):
                self._require("free memory is taken again,", other, now)
        self.memory[_address(tensor)] = Accesses(True, self.current.name, (self.current.name, now[self.current.name]))

    @staticmethod
    def _require(what: str, other: tuple[str, int], now: Clock) -> None:
        name, count = other
        if now.get(name, 0) < count:
            raise RaceError(f"{what} what {name} may still work with")


class _Bookkeeper(TorchDispatchMode):
    def __init__(self, gpu: PretendedGpu) -> None:
        super().__init__()
        self._gpu = gpu

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [tensor for tensor in _tensors_in(args, *(kwargs or {}).values()) if _address(tensor)]
        written = [
            value
            for argument, value in zip(function._schema.arguments, args, strict=False)
            if argument.alias_info is not None and argument.alias_info.is_write and isinstance(value, Tensor)
        ]
        result = function(*args, **(kwargs or {}))
        own = {_address(tensor) for tensor in given}
        new = [tensor for tensor in _tensors_in(result) if _address(tensor) not in {0, *own}]
        if new or written:  # else it is a view
            read = [tensor for tensor in given if not any(tensor is other for other in written)]
            self._gpu.note(str(function), read, written)
            for tensor in new:
                self._gpu.note_new(tensor, given)
        return result


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _tensors_in(*values: object) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors_in(*value)


def _on_cpu(argument: object) -> object:
    return torch.device("cpu") if isinstance(argument, torch.device) else argument
