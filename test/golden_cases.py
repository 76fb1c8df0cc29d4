"""Golden cases of the official code: where they lie, and how to read one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

DIRECTORY = Path(os.environ.get("BEVFORMER_GOLDENS", Path(__file__).parents[2] / "shared" / "golden"))


def variants(case: str) -> list[Any]:
    """pytest parameters: one per variant of the case in the directory, or a single one that skips."""
    files = sorted(DIRECTORY.glob(f"{case}_*.safetensors"))
    missing = pytest.param(None, marks=pytest.mark.skip(reason=f"no {case}_*.safetensors in {DIRECTORY}"), id="none")
    return [pytest.param(path, id=path.stem) for path in files] or [missing]


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and description of a variant."""
    return load_file(path), json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with the prefix, which is cut off."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def assert_equal(actual: Tensor, expected: Tensor, what: str, tolerance: float = 1e-4) -> None:
    """Largest difference within the tolerance, relative to the expected tensor's largest value."""
    assert actual.shape == expected.shape, f"{what}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    if expected.numel():
        error = (actual.double() - expected.double()).abs().max() / expected.double().abs().max().clamp(min=1e-12)
        assert error <= tolerance, f"{what}: relative error {error:.2e}"
