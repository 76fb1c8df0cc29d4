"""What GPUs can do per second at best, by their makers' data sheets; without sparsity."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DataSheet:
    """bfloat16: operations of the matrix units, the same in float16. float32: operations outside of these, which is
    where float32 without TF32 is computed. memory: bytes. source: of the numbers."""

    name: str
    bfloat16: float
    float32: float
    memory: float
    source: str

    def matrices(self, precision: str) -> float:
        """Operations of convolutions and products of matrices."""
        return self.float32 if precision == "float32" else self.bfloat16


# Makers often give twice the matrix units' rate, for matrices half of whose numbers are zero.
DATA_SHEETS = {
    "h200": DataSheet("NVIDIA H200 SXM", 989e12, 67e12, 4.8e12, "nvidia.com/en-us/data-center/h200"),
    "h100": DataSheet("NVIDIA H100 SXM", 989e12, 67e12, 3.35e12, "nvidia.com/en-us/data-center/h100"),
    "a4000": DataSheet("NVIDIA RTX A4000", 76.7e12, 19.2e12, 448e9, "data sheet NVIDIA RTX A4000, 2021"),
    "orin": DataSheet("NVIDIA Jetson AGX Orin 64GB", 42.5e12, 5.3e12, 204.8e9, "Jetson AGX Orin technical brief v1.2"),
    "l4": DataSheet("NVIDIA L4", 121e12, 30.3e12, 300e9, "nvidia.com/en-us/data-center/l4"),
    "rtx4090": DataSheet("NVIDIA GeForce RTX 4090", 165.2e12, 82.6e12, 1008e9, "Ada GPU architecture white paper v2.1"),
}
