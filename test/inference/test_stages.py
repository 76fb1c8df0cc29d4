"""That both halves of the forward pass ask nothing of the host, so that CUDA can record them.

They run on the meta device, which has no data.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from bevformer_ros.config import load_yaml
from bevformer_ros.inference import stages
from bevformer_ros.inference.bev_buffer import BevBuffer, EncodedFrame
from bevformer_ros.inference.history import HistoryConfig
from bevformer_ros.inference.network_preparation import prepare_for_inference
from bevformer_ros.model import fused_operators
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.model.network import NetworkInputs, build_network
from bevformer_ros.resources import config_file
from bevformer_ros.types import SECOND_NS

META = torch.device("meta")
RELEASED = [
    "bevformerv2_r50_t1_base",
    "bevformerv2_r50_t1",
    "bevformerv2_r50_t2",
    "bevformerv2_r50_t8",
    "r50_t1_two_stage",
    "r50_t8_two_stage",
    "demo",
]
_MAKES_TENSORS_FROM_HOST = (torch.tensor, torch.as_tensor, torch.from_numpy, Tensor.new_tensor)


class NoTensorsFromTheHost(TorchFunctionMode):
    """A list as an index becomes a tensor on the host first, and is copied."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is Tensor.__getitem__:
            parts = args[1] if isinstance(args[1], tuple) else (args[1],)
            assert not any(isinstance(part, list | np.ndarray) for part in parts), f"indexed with {parts}"
        assert func not in _MAKES_TENSORS_FROM_HOST, f"{func} makes a tensor on the host"
        return func(*args, **(kwargs or {}))


class NoTensorsOnTheHost(TorchDispatchMode):
    """But for single numbers, which travel inside a kernel's arguments."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [value for value in (*args, result) if isinstance(value, Tensor)]
        assert all(value.device == META or value.dim() == 0 for value in tensors), f"{func} works on the host"
        return result


@pytest.mark.parametrize("asks", [lambda x: x[..., [0, 1]], lambda x: x + torch.tensor([1.0, 2.0], device=META)])
def test_what_is_refused(asks):
    with NoTensorsFromTheHost(), pytest.raises(AssertionError, match="indexed with|on the host"):
        asks(torch.ones(3, 2, device=META))


@pytest.mark.parametrize("mode", ["warp", "reencode"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_nothing_waits_for_the_host(mode, dtype):
    config = load_yaml(ModelConfig, config_file("models", "tiny_two_stage"))
    run_on_meta(replace(config, temporal=replace(config.temporal, mode=mode)), dtype)


@pytest.mark.parametrize(
    "proposals", [{"bev_nms_iou": 0.3}, {"merge_margin": 0.5}, {"residual": True}, {"join_scores": True}]
)
def test_nothing_waits_for_the_host_however_proposals_are_made_and_used(proposals):
    config = load_yaml(ModelConfig, config_file("models", "tiny_two_stage"))
    assert config.proposals is not None
    run_on_meta(replace(config, proposals=replace(config.proposals, **proposals)), torch.bfloat16)


@pytest.mark.parametrize("model", RELEASED)
def test_nothing_waits_for_the_host_in_the_released_models(model):
    run_on_meta(load_yaml(ModelConfig, config_file("models", model)), torch.bfloat16)


def test_nothing_waits_for_the_host_where_operators_are_not_fused(monkeypatch):
    monkeypatch.setattr(fused_operators, "_DEVICES", ())
    run_on_meta(load_yaml(ModelConfig, config_file("models", "tiny_two_stage")), torch.bfloat16)


def run_on_meta(config, dtype):
    with META:
        network = build_network(config)
    network = prepare_for_inference(network, META, dtype)
    width, height = config.image.padded_size
    cameras = len(config.cameras)
    buffer = BevBuffer(config.temporal, HistoryConfig(), config.bev, network.encode_bev)
    given = NetworkInputs(
        torch.empty(1, cameras, 3, height, width, device=META),
        torch.empty(1, cameras, device=META, dtype=torch.bool),
        *(torch.empty(1, cameras, size, size, device=META) for size in (3, 4, 4)),
    )
    with torch.inference_mode():
        for frame in range(len(config.temporal.frames)):
            encoded = network.encode(given)
            projections = np.tile(np.eye(4), (cameras, 1, 1))
            now = EncodedFrame(
                frame * SECOND_NS // 2, np.eye(4), encoded.bev, encoded.features, projections, given.camera_valid
            )
            recall = buffer.recall(now)
            buffer.store(now)
            stages.detect(network, buffer, encoded.bev, recall.past, encoded.proposals)
        assert recall.depth == len(config.temporal.frames) - 1
        with NoTensorsFromTheHost(), NoTensorsOnTheHost():
            encoded = network.encode(given)
            stages.detect(network, buffer, encoded.bev, recall.past, encoded.proposals)
