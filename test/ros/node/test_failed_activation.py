"""That an activation that fails leaves nothing on the GPU; the node is not started for it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="needs the ROS environment that `make test` makes")

import torch
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.logging import get_logger

from bevformer_ros.ros.node.detector_node import DetectorNode


class Network:
    """Refers to itself, as modules with hooks do: only the collector frees it."""

    def __init__(self) -> None:
        self.owner = self


@pytest.mark.parametrize(
    ("error", "outcome", "undone"),
    [
        (lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "FAILURE", True),
        (lambda: ValueError("no such model"), "FAILURE", True),
        (lambda: RuntimeError("CUDA error: device-side assert triggered"), "ERROR", False),
        (lambda: KeyError("planted"), "ERROR", False),
    ],
)
def test_memory_is_given_back(
    error: Callable[[], Exception], outcome: str, undone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[weakref.ref[Network]] = []
    alive: list[bool] = []
    calls: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: alive.append(left[0]() is not None))

    def activate() -> None:
        network = Network()
        left.append(weakref.ref(network))
        raise error()

    node = SimpleNamespace(get_logger=lambda: get_logger("test"), _device="cpu", _gpu_lost="")
    node._outcome = partial(DetectorNode._outcome, node)
    status = DetectorNode._attempt(node, "activate", activate, lambda: calls.append("undone"))
    assert status is getattr(TransitionCallbackReturn, outcome)
    assert bool(calls) == undone
    assert alive == [False]  # given back once, when nothing held it any more
