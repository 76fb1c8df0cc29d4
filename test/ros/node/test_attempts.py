"""What the log says of a transition that fails, and what becomes of it."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest

pytest.importorskip("vision_msgs.msg", reason="needs the ROS environment that `make test` makes")

import torch
from rclpy.lifecycle import TransitionCallbackReturn

from bevformer_ros.ros.node.detector_node import DetectorNode


@pytest.mark.parametrize(
    ("error", "result", "text"),
    [
        (None, TransitionCallbackReturn.SUCCESS, ""),
        (ValueError("no such rig"), TransitionCallbackReturn.FAILURE, "cannot activate: no such rig"),
        (
            torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore"),
            TransitionCallbackReturn.FAILURE,
            "the GPU's memory does not suffice (CUDA out of memory. Tried to allocate 2 GiB.); take a smaller model",
        ),
        (
            RuntimeError("The NVIDIA driver on your system is too old: CUDA 11.4\nMore"),
            TransitionCallbackReturn.ERROR,
            "driver on your system is too old: CUDA 11.4; check the GPU with nvidia-smi, or set device to cpu",
        ),
        (RuntimeError("something else"), TransitionCallbackReturn.ERROR, "Traceback"),
    ],
    ids=["none", "user", "memory", "driver", "other"],
)
def test_an_attempt(error, result, text):
    logged, undone = [], []

    def action():
        if error is not None:
            raise error

    node = SimpleNamespace(get_logger=lambda: SimpleNamespace(error=logged.append), _device="cpu", _gpu_lost="")
    node._outcome = partial(DetectorNode._outcome, node)
    assert DetectorNode._attempt(node, "activate", action, undo=lambda: undone.append(True)) == result
    assert bool(logged) == bool(text)
    assert all(text in line for line in logged)
    assert bool(undone) == (result == TransitionCallbackReturn.FAILURE)
