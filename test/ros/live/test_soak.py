from __future__ import annotations

import os
from dataclasses import replace

import pytest

pytest.importorskip("vision_msgs.msg", reason="needs the ROS environment that `make test` makes")

from support import SMALLEST

from bevformer_ros.ros.live.node_benchmark import NodeLoad
from bevformer_ros.ros.live.soak import Sample, SoakResult, sample_of, soak

STEADY = tuple(Sample(10 * step, 500.0 + step % 3, 20, 60, 12) for step in range(30))


def grown(**changes):
    """The last third differs."""
    return SoakResult(300, 300, {}, (*STEADY[:20], *(replace(sample, **changes) for sample in STEADY[20:])))


@pytest.mark.parametrize(
    ("result", "faults"),
    [
        (SoakResult(0, 0, {}, ()), ["only 0 samples, expected at least 6: run more sets"]),
        (grown(), []),
        (grown(memory_mb=510.0), []),
        (grown(memory_mb=530.0), ["memory grew by 29 MB in the last third, expected at most 16"]),
        (grown(threads=21), ["threads grew from 20 to 21"]),
        (grown(descriptors=70), ["descriptors grew from 60 to 70"]),
        (grown(shared_files=13), ["shared files grew from 12 to 13"]),
        (replace(grown(), processed=290, dropped={"superseded": 10}), []),
    ],
)
def test_verdict(result, faults):
    assert result.faults() == faults
    assert ("it holds what it held" in result.table()) == (not faults)


def test_lost_images_are_counted_and_nobodys_growth():
    result = replace(grown(), processed=280, dropped={"superseded": 10})
    assert result.never_arrived == 10
    assert "never arrived: 10" in result.table() and result.faults() == []


def test_a_sample_of_ourselves():
    sample = sample_of(os.getpid(), 3)
    assert sample.sets == 3
    assert sample.memory_mb > 10 and sample.threads >= 1 and sample.descriptors >= 3


@pytest.mark.integration
def test_a_short_soak():
    result = soak(NodeLoad(str(SMALLEST), device="cpu", sets=60, rate=20.0, size=(160, 90)))
    assert result.published == 60
    assert result.processed > 0
    assert len(result.samples) > 6
