from __future__ import annotations

import pytest

pytest.importorskip("vision_msgs.msg", reason="needs the ROS environment that `make test` makes")

from bevformer_ros.ros.result_messages import marker_lifetime_ns
from bevformer_ros.types import SECOND_NS


@pytest.mark.parametrize(
    ("period_ns", "lifetime_ns"),
    [
        (None, SECOND_NS),
        (SECOND_NS // 10, SECOND_NS // 4),
        (SECOND_NS // 1000, SECOND_NS // 5),
        (100 * SECOND_NS, 5 * SECOND_NS),
    ],
)
def test_marker_lifetime(period_ns, lifetime_ns):
    assert marker_lifetime_ns(period_ns) == lifetime_ns
