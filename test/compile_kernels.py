"""Compiles the fused kernels for an H100 or H200, which needs neither; prints their names.

On its own, because Triton either compiles or interprets in a process.
"""

from __future__ import annotations

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bevformer_ros.model.attention import triton_sampling as kernels

TYPES = {
    **dict.fromkeys(("value", "offsets", "output", "output_gradient"), "*bf16"),
    **dict.fromkeys(("weights", "references", "shares"), "*fp32"),
    **dict.fromkeys(("value_gradient", "offsets_gradient", "weights_gradient"), "*fp32"),
    **dict.fromkeys(("images", "queries", "cells"), "i32"),
}
CONSTANTS = {
    "HEIGHTS": (4, 2),
    "WIDTHS": (5, 3),
    "STARTS": (0, 20),
    "HEADS": 2,
    "CHANNELS": 8,
    "POINTS": 4,
    "ANCHORS": 2,
    "BLOCK_QUERIES": 4,
    "BLOCK_POINTS": 4,
    "BLOCK_CHANNELS": 8,
}

for kernel in (kernels._sum_samples, kernels._differentiate):
    signature = {name: TYPES.get(name, "constexpr") for name in kernel.arg_names}
    source = ASTSource(kernel, signature, CONSTANTS)
    triton.compile(source, target=GPUTarget("cuda", 90, 32))
    print(kernel.fn.__name__)
