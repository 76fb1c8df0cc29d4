from __future__ import annotations

import pytest

from bevformer_ros.ros.node.rate_limit import RateLimit
from bevformer_ros.types import MILLISECOND_NS


def admitted(rate_hz, *stamps_ms):
    limit = RateLimit(rate_hz)
    return [stamp for stamp in stamps_ms if limit.admits(stamp * MILLISECOND_NS)]


@pytest.mark.parametrize(
    ("rate_hz", "stamps_ms", "expected"),
    [
        (5.0, [], []),
        (0.0, [0, 1, 2], [0, 1, 2]),
        (5.0, [0, 100, 200, 300, 400], [0, 200, 400]),
        (5.0, [0, 100, 205, 300, 400], [0, 205, 400]),  # one that is late
        (20.0, [0, 100, 200], [0, 100, 200]),  # never reached
        (1.0, [0, 5000, 5100, 6000], [0, 5000, 6000]),  # after a pause no two at once
        (1.0, [9000, 9500, 100, 600, 1100], [9000, 100, 1100]),  # a bag that starts again
    ],
)
def test_limits(rate_hz, stamps_ms, expected):
    assert admitted(rate_hz, *stamps_ms) == expected


def test_the_average_is_the_limit():
    """15 Hz limited to 10 Hz: two of three sets."""
    stamps = [round(index * 1000 / 15) for index in range(151)]
    assert len(admitted(10.0, *stamps)) == pytest.approx(100, abs=1)
