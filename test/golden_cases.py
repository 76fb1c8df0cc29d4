"""Golden cases of the official code: where they lie, and how to read one.

The folder is $BEVFORMER_GOLDENS if that is set; else the large set beside the checkout, if it is there; else the small
set in test/data/golden, which is part of the repository.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from support import REPOSITORY
from torch import Tensor

SMALL_SET = REPOSITORY / "test" / "data" / "golden"
LARGE_SET = REPOSITORY.parent / "shared" / "golden"
DIRECTORY = Path(os.environ.get("BEVFORMER_GOLDENS") or (LARGE_SET if LARGE_SET.is_dir() else SMALL_SET))
left_out: set[str] = set()
"""What tests asked for and the folder lacks; pytest's closing summary names it."""


def variants(case: str) -> list[Any]:
    """pytest parameters: one per variant of the case in the folder, or a single one that skips."""
    return files(f"{case}_*.safetensors")


def files(pattern: str) -> list[Any]:
    """pytest parameters: one per file in the folder, or a single one that skips."""
    paths = sorted(DIRECTORY.glob(pattern))
    if not paths:
        left_out.add(pattern)
    absent = pytest.param(None, marks=pytest.mark.skip(reason=f"no {pattern} in {DIRECTORY}"), id="none")
    return [pytest.param(path, id=path.stem) for path in paths] or [absent]


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
