"""An official checkpoint becomes one file of ours that holds the model's configuration too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bevformer_ros.error_model import ErrorModel
from bevformer_ros.model.checkpoint import load_weights, read_checkpoint, save_checkpoint
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.model.network import build_network


@dataclass(frozen=True)
class Conversion:
    """What was written. left_out: tensors of the source that the network does not use. problems: what did not fit."""

    output: Path
    config: ModelConfig
    weights: dict[str, Tensor]
    left_out: tuple[str, ...]
    problems: tuple[str, ...]

    def table(self) -> str:
        """Numbers by part of the network, then what was left out and what did not fit."""
        numbers: Counter[str] = Counter()
        tensors: Counter[str] = Counter()
        for name, tensor in self.weights.items():
            part = name.partition(".")[0]
            numbers[part] += tensor.numel()
            tensors[part] += 1
        lines = [f"{'part':<18}{'tensors':>8}{'numbers':>12}"]
        lines += [f"{part:<18}{tensors[part]:>8}{count:>12,}" for part, count in numbers.items()]
        lines += [f"{'all':<18}{tensors.total():>8}{numbers.total():>12,}", ""]
        lines += [f"left out, the network does not use it: {name}" for name in self.left_out]
        lines += [f"did not fit: {problem}" for problem in self.problems]
        lines.append(f"wrote {self.output}: {self.config.name}, {self.output.stat().st_size / 1e6:.1f} MB")
        return "\n".join(lines)


def convert(
    source: Path,
    output: Path,
    config: ModelConfig,
    partial: bool = False,
    half: bool = False,
    score_thresholds: float | Sequence[float] | None = None,
    error_model: ErrorModel | None = None,
) -> Conversion:
    """Write a .pth as mmcv saved it, or a .safetensors of ours, as a .safetensors of ours.

    partial: take what fits and leave the rest random. half: store float16. score_thresholds: that the weights are to
    recommend from now on, one for all classes or one for each. error_model: what they are to say of their errors. None
    leaves either as it is. Raises ValueError for a file that does not fit the model, and for numbers too large for
    float16.
    """
    checkpoint = read_checkpoint(source)
    network = build_network(config)
    problems = load_weights(network, checkpoint.weights, partial=partial)
    weights = network.state_dict()
    if half:
        weights = {name: _halved(name, tensor) for name, tensor in weights.items()}
    thresholds = checkpoint.score_thresholds if score_thresholds is None else score_thresholds
    save_checkpoint(output, weights, config, thresholds, error_model or checkpoint.error_model)
    return Conversion(output, config, weights, tuple(checkpoint.left_out), tuple(problems))


def _halved(name: str, tensor: Tensor) -> Tensor:
    """float16 where the tensor was float32; integers stay."""
    if not tensor.is_floating_point():
        return tensor
    if tensor.abs().max() > torch.finfo(torch.float16).max:
        raise ValueError(f"{name} holds {tensor.abs().max():.4g}, too large for float16; leave out --half")
    return tensor.half()
