from __future__ import annotations

import re
import sys

import pytest

pytest.importorskip("rclpy", reason="needs the ROS environment that `make test` makes")

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("options", [["--size", "160x90"], ["--compressed", "--reliable"]])
def test_measures_and_loses_nothing(start_process, options):
    words = [sys.executable, "-m", "bevformer_ros", "benchmark-sync", "--sets", "20", *options]
    benchmark = start_process(words)
    assert benchmark.wait() == 0
    assert "20 of 20 synchronised, 0 lost" in benchmark.output
    assert re.search(r"CPU +[\d.]+ ms per set, \d+ % of a core", benchmark.output)
    assert re.search(r"latency +p50 [\d.]+ ms, p95 [\d.]+ ms", benchmark.output)
