from __future__ import annotations

import pytest

pytest.importorskip("vision_msgs.msg", reason="needs the ROS environment that `make test` makes")

from bevformer_ros.ros.result_messages import marker_lifetime_ns

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("period_ns", "lifetime_ns"),
    [
        (None, SECOND),
        (SECOND // 10, SECOND // 4),
        (SECOND // 1000, SECOND // 5),
        (100 * SECOND, 5 * SECOND),
    ],
)
def test_marker_lifetime(period_ns, lifetime_ns):
    assert marker_lifetime_ns(period_ns) == lifetime_ns
