"""Counts against sums by hand, and that those of the full-size models do not grow: they are exact, not timings."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F

from bevformer_ros.benchmarks.data_sheets import DATA_SHEETS, DataSheet
from bevformer_ros.benchmarks.roofline import META, Operator, _Counter, roofline
from bevformer_ros.commands.cli import main
from bevformer_ros.config import load_yaml
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.resources import config_file

# Model: bytes in GB and kernels of one frame in bfloat16, rounded up.
LIMITS = {
    "bevformerv2_r50_t1": (14.2, 366),
    "r50_t1_two_stage": (17.1, 920),
    "r50_t8_two_stage": (20.6, 941),
    "bevformerv2_r50_t8": (55.2, 1064),
}


@torch.no_grad()
def counted(function) -> list[Operator]:
    with _Counter(seen=0.25) as counter:
        function()
        counter.mark("stage")
    return counter.operators


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, device=META, dtype=dtype)


def test_nothing_runs_where_only_shapes_change() -> None:
    assert counted(lambda: empty(2, 3).t().unflatten(0, (3, 1))[:1]) == []


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda: empty(2, 3) + empty(3), [("add", "elementwise", 0, 4 * (6 + 3 + 6))]),
        (lambda: empty(2, 3) + empty(1).expand(3), [("add", "elementwise", 0, 4 * (6 + 1 + 6))]),
        (lambda: empty(2, 3).relu_(), [("relu_", "elementwise", 0, 4 * (6 + 6))]),
        (lambda: empty(2, 3).to(torch.bfloat16), [("_to_copy", "copies", 0, (4 + 2) * 6)]),
        (lambda: empty(2, 3).copy_(empty(2, 3)), [("copy_", "copies", 0, 4 * (6 + 6))]),
        (
            lambda: empty(9, 5).index_select(0, empty(2, dtype=torch.int64)),
            [("index_select", "copies", 0, 4 * (10 + 10) + 8 * 2)],
        ),
        (
            lambda: F.linear(empty(2, 3), empty(4, 3), empty(4)),
            [("addmm", "matrices", 2 * 2 * 3 * 4, 4 * (6 + 12 + 4 + 8))],
        ),
        (
            lambda: F.conv2d(empty(1, 3, 4, 4), empty(5, 3, 1, 1), empty(5)),
            [
                ("convolution", "convolution", 2 * 16 * 3 * 5, 4 * (48 + 15 + 80)),
                ("bias", "bias", 0, 4 * (80 + 5 + 80)),
            ],
        ),
        (
            lambda: torch.ops.bevformer_ros.convolve(
                empty(1, 3, 4, 4), empty(5, 3, 1, 1), empty(5), empty(1, 5, 4, 4), (1, 1), (0, 0)
            ),
            [("convolve", "convolution", 2 * 16 * 3 * 5, 4 * (48 + 15 + 5 + 80 + 80))],
        ),
    ],
)
def test_by_hand(function, expected: list[tuple[str, str, int, int]]) -> None:
    operators = counted(function)
    assert [(entry.name, entry.kind, entry.flops, entry.bytes) for entry in operators] == expected
    assert all(entry.stage == "stage" for entry in operators)


@pytest.mark.parametrize(("images", "levels", "seen"), [(1, 1, 1.0), (4, 2, 0.25)])
def test_samples_are_those_that_are_seen(images: int, levels: int, seen: float) -> None:
    heads, points, channels, queries = 2, 8, 16, 100
    (entry,) = counted(
        lambda: torch.ops.bevformer_ros.sample(
            empty(1, images, 12, heads, channels),
            empty(1, queries, 3, heads, levels, points),
            None,
            empty(1, images, queries, 1, 2),
            empty(1, images, queries),
            levels * (3,),
            levels * (4,),
            1,
        )
    )
    assert entry.kind == "sampling"
    samples = images * seen * queries * heads * levels * points * channels
    assert entry.instructions == samples * (16 if levels > 1 else 24)


def test_the_slowest_part_decides() -> None:
    sheet = DataSheet("by hand", bfloat16=1e12, float32=1e12, memory=1e12, source="")
    computes = Operator("", "", "", flops=2 * 10**9, bytes=10**9)
    assert computes.seconds_at_peak(sheet, "bfloat16") == 2e-3
    assert computes.seconds(sheet, "bfloat16") > 3e-3
    assert Operator("", "", "", flops=10**9, bytes=3 * 10**9).seconds(sheet, "bfloat16") == 3e-3
    assert Operator("", "", "", flops=0, bytes=1).seconds(sheet, "bfloat16") > 1e-6


@pytest.mark.parametrize("model", LIMITS)
def test_full_size_models_move_no_more_bytes_in_no_more_kernels(model: str) -> None:
    config = load_yaml(ModelConfig, config_file("models", model))
    gigabytes, kernels = LIMITS[model]
    counts = roofline(config, "bfloat16", DATA_SHEETS["h200"])
    assert counts.bytes / 1e9 <= gigabytes
    assert counts.kernels <= kernels
    assert counts.floor_ms < counts.peak_ms < counts.total_ms


def test_the_command_needs_no_gpu(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "roofline.json"
    assert main(["benchmark", "--model", "tiny", "--roofline", "orin", "--json", str(file)]) == 0
    numbers = json.loads(file.read_text())
    assert numbers["total_ms"] > 0 and numbers["stages"]["encoder"]["kernels"] > 0
    assert "Jetson AGX Orin" in capsys.readouterr().out
