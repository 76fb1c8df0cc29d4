"""Compiles all kernels of full size for the GPU of one architecture, which needs none; prints as JSON what each needs.

On its own, because Triton either compiles or interprets in a process. `python compiled_kernels.py 90 bf16,fp32`
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import tempfile
from itertools import accumulate
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bevformer_ros.model import triton_norm
from bevformer_ros.model.attention import triton_sampling

LEVELS = ((80, 200), (40, 100), (20, 50), (10, 25))
GRID = ((200, 200),)
FLOAT32 = ("references", "shares", "value_gradient", "offsets_gradient", "weights_gradient")
# By hand, where Triton's driver would read it off the tensors: torch aligns these far better.
ALIGNMENT = 16
BINARIES = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


def sampling(levels: tuple[tuple[int, int], ...], points: int, anchors: int, block: int, **options: int) -> dict:
    cells = [height * width for height, width in levels]
    return {
        "HEIGHTS": tuple(height for height, _ in levels),
        "WIDTHS": tuple(width for _, width in levels),
        "STARTS": tuple(accumulate(cells[:-1], initial=0)),
        "HEADS": 8,
        "CHANNELS": 32,
        "POINTS": points,
        "ANCHORS": anchors,
        "BLOCK_QUERIES": block // (points * 32),
        "BLOCK_POINTS": points,
        "BLOCK_CHANNELS": 32,
        **options,
    }


def rows(offsets: int, weights: int, sets: int, has_constant: bool, samples: int) -> dict[str, int]:
    return {
        "OFFSETS_ROW": offsets,
        "WEIGHTS_ROW": weights,
        "SETS": sets,
        "HAS_CONSTANT": has_constant,
        "BLOCK_SAMPLES": samples,
    }


FORWARD, BACKWARD = triton_sampling.FORWARD_BLOCK, triton_sampling.BACKWARD_BLOCK
WARPS = {"gradient": triton_sampling.BACKWARD_WARPS, "norm": 4}  # the others have those of the forward kernel
KERNELS: dict[str, tuple[Any, dict]] = {
    "cameras": (triton_sampling._sum_samples, sampling(LEVELS, 8, 4, FORWARD, **rows(768, 768, 1, False, 32))),
    "grid": (triton_sampling._sum_samples, sampling(GRID, 8, 1, FORWARD, **rows(192, 192, 2, True, 8))),
    "objects": (triton_sampling._sum_samples, sampling(GRID, 4, 1, FORWARD, **rows(96, 96, 1, False, 4))),
    "training": (triton_sampling._sum_samples, sampling(LEVELS, 8, 4, FORWARD, **rows(512, 256, 0, False, 1))),
    "gradient": (triton_sampling._differentiate, sampling(LEVELS, 8, 4, BACKWARD)),
    "norm": (
        triton_norm._add_norm,
        {"EPSILON": 1e-5, "CHANNELS": 256, "BLOCK_ROWS": triton_norm._BLOCK // 256, "BLOCK_CHANNELS": 256},
    ),
}


def needs(name: str, number: str, architecture: int) -> dict[str, float]:
    """Bytes of spilled registers and of shared memory, registers of a thread, and how many instructions it executes for
    a channel of a sample of one image, from its first to the one that stores the sum."""
    kernel, constants = KERNELS[name]
    signature = {
        name: "constexpr"
        if name in constants
        else "*fp32"
        if name in FLOAT32
        else "i32"
        if name in ("images", "queries", "cells", "rows")
        else f"*{number}"
        for name in kernel.arg_names
    }
    aligned = {
        (index,): [["tt.divisibility", ALIGNMENT]]
        for index, kind in enumerate(signature.values())
        if kind.startswith("*")
    }
    warps = WARPS.get(name, triton_sampling.FORWARD_WARPS)
    compiled = triton.compile(
        ASTSource(kernel, signature, constants, aligned),
        target=GPUTarget("cuda", architecture, 32),
        options={"num_warps": warps},
    )
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        Path(cubin.name).write_bytes(compiled.asm["cubin"])
        usage = subprocess.run(
            [BINARIES / "cuobjdump", "-res-usage", cubin.name], capture_output=True, text=True, check=True
        ).stdout
        listing = subprocess.run([BINARIES / "nvdisasm", "-c", cubin.name], capture_output=True, text=True).stdout
    instructions = re.findall(r"/\*[0-9a-f]{4,}\*/ +(?:@\S+ +)?(\w+)", listing)
    executed = len(instructions) - instructions[::-1].index("STG")
    sizes = [constants.get(f"BLOCK_{size}", 1) for size in ("QUERIES", "POINTS", "CHANNELS")]
    samples = math.prod(sizes) * len(constants.get("STARTS", (0,)))
    found = dict(re.findall(r"(REG|STACK|LOCAL|SHARED):(\d+)", usage))
    return {
        "registers": int(found["REG"]),
        "spilled": int(found["LOCAL"]) + int(found["STACK"]),
        "shared": int(found["SHARED"]),
        "instructions_per_sample": executed * 32 * warps / samples,
        "wide_loads": len(re.findall(r"LDG\S*\.128", listing)),
    }


if __name__ == "__main__":
    architecture = int(sys.argv[1])
    results = {
        f"{name} {number}": needs(name, number, architecture) for name in KERNELS for number in sys.argv[2].split(",")
    }
    print(json.dumps(results))
