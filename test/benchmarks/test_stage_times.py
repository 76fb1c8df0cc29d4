"""The benchmark's report: which stages it has, what may be varied, and that it can be read by machines."""

from __future__ import annotations

import json
from itertools import islice

import numpy as np
import pytest
import torch

from bevformer_ros.benchmarks import frames as benchmark_frames
from bevformer_ros.benchmarks import stage_times as benchmark
from bevformer_ros.commands.cli import main
from bevformer_ros.config import load_yaml
from bevformer_ros.model.bev_encoder import pillar_points, project_pillars
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.resources import config_file

TINY = load_yaml(ModelConfig, config_file("models", "tiny"))
TWO_STAGE = load_yaml(ModelConfig, config_file("models", "tiny_two_stage"))
STAGES = ["decode", "preprocess", "backbone", "neck", "perspective", "encoder", "store", "buffer", "fusion", "decoder"]


def test_json_report(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", "tiny_two_stage", "--repeats", "2", "--height", "64", "--past-frames", "1", "--cameras", "2"]
    assert main(["benchmark", *words, "--mode", "reencode", "--precision", "float32", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report["stages"]) == [*STAGES, "post"]
    assert (report["cameras"], report["input_size"], report["past_frames"]) == (2, [160, 64], 1)
    assert report["stages"]["backbone"]["gflop"] > 0
    assert report["stages"]["buffer"]["gflop"] == report["stages"]["encoder"]["gflop"]  # one past frame
    assert report["end_to_end"]["median"] > sum(stage["times"]["median"] for stage in report["stages"].values()) / 2
    assert report["peak_memory_mb"] > 0
    assert (report["naive"], report["errors"]) == (None, {})


def test_table_of_a_reduced_precision_tells_its_error(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", "tiny", "--repeats", "1", "--height", "64", "--precision", "bfloat16", "--naive"]
    assert main(["benchmark", *words]) == 0
    printed = capsys.readouterr().out
    for line in ("encoder", "end to end", "times as long", "peak memory", "largest error against float32", "box codes"):
        assert line in printed


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--repeats", "0"], "repeats is 0, expected at least 1"),
        (["--cameras", "9"], "--cameras must lie in 1..8, got 9"),
        (["--past-frames", "-1"], "--past-frames must be 0 or more, got -1"),
    ],
)
def test_what_is_refused(words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "--model", "tiny", *words]) == 1
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize("cameras", [1, 6, 8])
def test_frames_have_the_cameras_of_the_model_and_follow_each_other(cameras: int) -> None:
    config = benchmark.changed(TWO_STAGE, cameras=cameras)
    first, second = islice(benchmark_frames.frames(config), 2)
    assert tuple(camera.name for camera in first.cameras if camera) == config.cameras
    assert second.stamp_ns - first.stamp_ns == 500_000_000
    assert np.linalg.norm((second.world_from_bev - first.world_from_bev)[:3, 3]) == pytest.approx(5.0)
    assert len(benchmark_frames.jpegs(first)) == cameras


def test_the_simulated_rig_sees_about_what_a_nuscenes_car_sees() -> None:
    """The golden cases, on the real rig, have 17 to 18 % of the pillar points visible."""
    width, height = TINY.image.padded_size
    points = pillar_points(TINY.bev, TINY.encoder.pillar_points, torch.device("cpu"))
    projections = torch.from_numpy(benchmark_frames.projections(TINY))[None].float()
    visible = project_pillars(points, projections, (height, width), None).visible
    assert 0.15 < visible.float().mean() < 0.21


def test_percentiles_by_hand() -> None:
    times = benchmark.Times.of([1.0, 2.0, 3.0, 4.0, 10.0])
    assert (times.mean, times.median) == (4.0, 3.0)
    assert times.p90 == pytest.approx(7.6)
    assert times.median < times.p90 < times.p99 < times.p99_9 < 10
    assert benchmark.Times.of([5.0]) == benchmark.Times(5.0, 5.0, 5.0, 5.0, 5.0)
