"""The detector's process on a machine that seems to have a GPU, which computes like the CPU and then is lost:
python lost_gpu.py loading|SETS --ros-args ...

Planted are torch's answers about the GPU and the error in the network; the node and its process are what users run.
"""

from __future__ import annotations

import sys

import pytest
import torch

from bevformer_ros.inference import pipeline
from bevformer_ros.ros.node import detector_node, process, session

ERROR = "CUDA error: an illegal memory access was encountered\nSearch for `cudaErrorIllegalAddress'"


class LostGpu:
    def __init__(self, when: str) -> None:
        self.lost = False
        self._sets_left = None if when == "loading" else int(when)

    def why_lost(self, device: str) -> str:
        assert device == "cuda"
        return ERROR.splitlines()[0] if self.lost else ""

    def lose(self) -> None:
        self.lost = True
        raise torch.AcceleratorError(ERROR)

    def detector(self, network, trained, device, *arguments) -> Detector:
        assert device == "cuda"
        return Detector(network, trained, "cpu", *arguments)

    def empty_cache(self) -> None:
        if self.lost:
            raise torch.AcceleratorError(ERROR)


class Detector(pipeline.Detector):
    def warm_up(self, masked: bool = False) -> None:
        if gpu._sets_left is None:
            gpu.lose()
        super().warm_up(masked)

    def __call__(self, frame):
        if gpu._sets_left == 0:
            gpu.lose()
        gpu._sets_left -= 1
        return super().__call__(frame)


gpu = LostGpu(sys.argv.pop(1))
plant = pytest.MonkeyPatch()
plant.setattr(pipeline, "Detector", gpu.detector)
for module in (detector_node, session):
    plant.setattr(module, "why_lost", gpu.why_lost)
plant.setattr(torch.cuda, "is_available", lambda: True)
plant.setattr(torch.cuda, "device_count", lambda: 1)
plant.setattr(torch.cuda, "empty_cache", gpu.empty_cache)
sys.exit(process.main())
