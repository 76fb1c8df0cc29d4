from __future__ import annotations

import re
import sys

import pytest
from support import SMALLEST

pytest.importorskip("rclpy", reason="needs the ROS environment that `make test` makes")

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("options", [[], ["--raw"]])
def test_measures_the_node(start_process, options):
    words = ["benchmark-node", "--model", SMALLEST, "--size", "160x90", "--sets", "15", "--rate", "5", *options]
    benchmark = start_process([sys.executable, "-m", "bevformer_ros", *words])
    assert benchmark.wait(180.0) == 0, benchmark.output
    assert re.search(r"sets +\d+ of 15 detected in, dropped: ", benchmark.output)
    for stage in ("from image to status", "decode_images", "wait_for_network", "backbone", "decoder", "publish"):
        assert re.search(rf"{stage} +[\d.]+ +[\d.]+ +[\d.]+", benchmark.output)
    assert re.search(r"CPU +\d+ ms per set, \d+ % of a core", benchmark.output)
