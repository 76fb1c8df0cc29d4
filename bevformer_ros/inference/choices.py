"""What a user can choose of how a network computes; apart from what carries it out, because it needs no torch."""

from __future__ import annotations

from typing import Literal

Backend = Literal["torch", "onnxruntime"]
Precision = Literal["float32", "bfloat16", "float16"]
PrecisionChoice = Literal["auto", "float32", "bfloat16", "float16"]
