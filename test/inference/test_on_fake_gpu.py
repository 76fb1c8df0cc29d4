"""The whole forward pass of every model on tensors that claim to lie on a GPU: shapes and devices alone, no values.

It fails where an operator is given tensors of two devices, or where the host would have to wait for a value. Needs a
torch that was built for CUDA, not a GPU: `pip install torch` on Linux.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support import REPOSITORY
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from bevformer_ros.config import load_yaml
from bevformer_ros.inference import stages
from bevformer_ros.inference.bev_buffer import BevBuffer, EncodedFrame
from bevformer_ros.inference.history import HistoryConfig
from bevformer_ros.inference.network_preparation import prepare_for_inference
from bevformer_ros.inference.packing import Packed
from bevformer_ros.model.attention.deformable_attention import DeformableAttention
from bevformer_ros.model.attention.torch_sampling import grid_sample_attention
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.model.network import BEVFormerV2, NetworkInputs, build_network
from bevformer_ros.types import SECOND_NS

pytestmark = pytest.mark.skipif(torch.version.cuda is None, reason="this torch was built without CUDA")

GPU = torch.device("cuda", 0)
MODELS = sorted((REPOSITORY / "config" / "models").glob("*.yaml"))


def prepared(config: ModelConfig, dtype: torch.dtype) -> BEVFormerV2:
    with torch.device("meta"):
        network = build_network(config)
    return prepare_for_inference(network, torch.device("meta"), dtype)


def claim_gpu(network: nn.Module) -> None:
    """Module.to cannot do it: it swaps tensors that the fake mode holds."""
    for module in network.modules():
        for name, value in module._parameters.items():
            if value is not None:
                module._parameters[name] = nn.Parameter(on_gpu(value), requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = on_gpu(buffer)


def on_gpu(value: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=GPU)


def inputs_of(config: ModelConfig) -> NetworkInputs:
    width, height = config.image.padded_size
    cameras = len(config.cameras)
    images = torch.empty(cameras, height, width, 3, device=GPU).permute(0, 3, 1, 2)[None]
    matrices = torch.empty(1, cameras, 4, 4, device=GPU)
    valid = torch.ones(1, cameras, dtype=torch.bool, device=GPU)
    return NetworkInputs(images, valid, matrices[..., :3, :3].contiguous(), matrices, matrices)


@torch.no_grad()
def detect_with_history(network: BEVFormerV2, config: ModelConfig) -> Packed:
    buffer = BevBuffer(config.temporal, HistoryConfig(), config.bev, network.encode_bev)
    inputs = inputs_of(config)
    encoded = network.encode(inputs)
    frames = {
        number: EncodedFrame(
            round(number * config.temporal.interval_s * SECOND_NS),
            np.eye(4),
            encoded.bev,
            encoded.features,
            np.tile(np.eye(4), (len(config.cameras), 1, 1)),
            inputs.camera_valid,
        )
        for number in config.temporal.frames
    }
    for frame in frames.values():
        buffer.store(frame)
    recall = buffer.recall(frames[0])
    assert recall.depth == len(frames) - 1
    return stages.detect(network, buffer, encoded.bev, recall.past, encoded.proposals)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "fused_sampling"),
    [(torch.float32, True), (torch.bfloat16, True), (torch.float16, True), (torch.float32, False)],
)
@pytest.mark.parametrize("model", MODELS, ids=lambda file: file.stem)
def test_every_model_runs_on_one_device_without_waiting(
    model: Path, dtype: torch.dtype, fused_sampling: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)  # asks for a driver
    config = load_yaml(ModelConfig, model)
    assert config is not None
    network = prepared(config, dtype)
    for module in network.modules():
        if isinstance(module, DeformableAttention) and not fused_sampling:
            module.sample = grid_sample_attention
    with FakeTensorMode():
        claim_gpu(network)
        detected = detect_with_history(network, config)
    assert detected.content.device == GPU


def test_the_check_sees_a_second_device_and_a_wait() -> None:
    with FakeTensorMode():
        on_device = torch.empty(2, device=GPU)
        with pytest.raises(RuntimeError, match="device"):
            on_device + torch.empty(2)
        with pytest.raises(RuntimeError):
            on_device.max().item()
