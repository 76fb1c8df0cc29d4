"""That every kernel compiles for the GPUs that matter, and fits: Triton's own compiler needs none of them.

The interpreter, in which the kernels are compared with torch, takes more than the compiler does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import REPOSITORY

pytest.importorskip("triton")

_HOPPER = 90
# Turing, Ampere, Orin, Ada, Hopper, Blackwell (data centre, Thor, GeForce, Spark).
_OTHERS = (75, 80, 86, 87, 89, 100, 103, 110, 120, 121)
_REGISTERS = 168  # with which a multiprocessor still has three blocks of four warps
_REGISTERS_IN_FLOAT32 = 255  # two blocks
# Two blocks again: here ptxas takes up to 239 for the gradient kernel; held to 168 it would spill 14 of them.
_WITH_LARGE_GRADIENT = (75, 86, 87, 89)
_REGISTERS_OF_GRADIENT = 240
_SPILLED = 16  # bytes; two or three registers
# For a channel of a sample in bfloat16 on Hopper, with which benchmarks/roofline.py counts.
_INSTRUCTIONS = {"cameras bf16": 17, "grid bf16": 26, "objects bf16": 23}
_SHARED = 48 * 1024  # what every GPU gives a block without asking


def compiled(architecture: int, numbers: str, cache: Path) -> dict[str, dict[str, int]]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(cache)
    command = [sys.executable, str(REPOSITORY / "test" / "compiled_kernels.py"), str(architecture), numbers]
    result = subprocess.run(command, env={**environment, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    needs: dict[str, dict[str, int]] = json.loads(result.stdout)
    return needs


def most_registers(kernel: str, architecture: int) -> int:
    if "fp32" in kernel:
        return _REGISTERS_IN_FLOAT32
    if kernel.startswith("gradient") and architecture in _WITH_LARGE_GRADIENT:
        return _REGISTERS_OF_GRADIENT
    return _REGISTERS


def fits(architecture: int, numbers: str, cache: Path) -> dict[str, dict[str, int]]:
    needs = compiled(architecture, numbers, cache)
    for name, need in needs.items():
        assert need["registers"] <= most_registers(name, architecture), (name, need)
        assert need["spilled"] <= _SPILLED, (name, need)
        assert need["shared"] <= _SHARED, (name, need)
        assert need["wide_loads"] >= 4, (name, need)
    return needs


def test_kernels_compile_and_fit(tmp_path: Path) -> None:
    needs = fits(_HOPPER, "bf16", tmp_path)
    for name, most in _INSTRUCTIONS.items():
        assert needs[name]["instructions_per_sample"] <= most, (name, needs[name])


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [_HOPPER, *_OTHERS])
def test_kernels_compile_and_fit_everywhere(architecture: int, tmp_path: Path) -> None:
    fits(architecture, "bf16,fp16,fp32", tmp_path)
