"""`bevformer-ros convert`: an official checkpoint becomes one file of ours that holds the model's configuration too.

One of ours may be given as well, to halve its size.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from bevformer_ros.config import load_yaml
from bevformer_ros.model.checkpoint import Checkpoint, load_weights, read_checkpoint, save_checkpoint
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.model.network import build_network
from bevformer_ros.resources import config_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, help="official .pth as mmcv saved it, or .safetensors of ours")
    parser.add_argument("output", type=Path, help="the .safetensors file to write")
    parser.add_argument("--model", required=True, help="a name in config/models, or a YAML of your own")
    parser.add_argument(
        "--partial", action="store_true", help="take what fits, leave the rest random; names what did not fit"
    )
    parser.add_argument("--half", action="store_true", help="store float16: half the size, off by 0.05 % at most")


def run(arguments: argparse.Namespace) -> int:
    config = load_yaml(ModelConfig, config_file("models", arguments.model))
    checkpoint = read_checkpoint(arguments.checkpoint)
    network = build_network(config)
    problems = load_weights(network, checkpoint.weights, partial=arguments.partial)
    weights = network.state_dict()
    if arguments.half:
        weights = {name: _halved(name, tensor) for name, tensor in weights.items()}
    save_checkpoint(arguments.output, weights, config)
    print(summary(arguments.output, config, checkpoint, weights, problems))
    return 0


def _halved(name: str, tensor: Tensor) -> Tensor:
    """float16 where the tensor was float32; integers stay."""
    if not tensor.is_floating_point():
        return tensor
    if tensor.abs().max() > torch.finfo(torch.float16).max:
        raise ValueError(f"{name} holds {tensor.abs().max():.4g}, too large for float16; leave out --half")
    return tensor.half()


def summary(
    output: Path, config: ModelConfig, checkpoint: Checkpoint, weights: dict[str, Tensor], problems: list[str]
) -> str:
    """What was written: numbers by part of the network, what was left out, what did not fit."""
    numbers: Counter[str] = Counter()
    tensors: Counter[str] = Counter()
    for name, tensor in weights.items():
        part = name.partition(".")[0]
        numbers[part] += tensor.numel()
        tensors[part] += 1
    lines = [f"{'part':<18}{'tensors':>8}{'numbers':>12}"]
    lines += [f"{part:<18}{tensors[part]:>8}{count:>12,}" for part, count in numbers.items()]
    lines += [f"{'all':<18}{tensors.total():>8}{numbers.total():>12,}", ""]
    lines += [f"left out, the network does not use it: {name}" for name in checkpoint.left_out]
    lines += [f"did not fit: {problem}" for problem in problems]
    lines.append(f"wrote {output}: {config.name}, {output.stat().st_size / 1e6:.1f} MB")
    return "\n".join(lines)
