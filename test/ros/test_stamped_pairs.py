from __future__ import annotations

import pytest

pytest.importorskip("vision_msgs.msg", reason="needs the ROS environment that `make test` makes")

from bevformer_ros.ros.conversions import header_of
from bevformer_ros.ros.stamped_pairs import StampedPairs


class Stamped:
    def __init__(self, stamp_ns, text):
        self.header, self.text = header_of(stamp_ns, "base_link"), text


def test_pairs_have_one_stamp_whatever_the_order():
    found = []
    pairs = StampedPairs(lambda first, second: found.append((first.text, second.text)))
    pairs.add_second(Stamped(1, "b"))
    pairs.add_first(Stamped(2, "c"))
    assert found == []
    pairs.add_first(Stamped(1, "a"))
    pairs.add_second(Stamped(2, "d"))
    assert found == [("a", "b"), ("c", "d")]


def test_pairs_go_on_after_a_jump_back_and_do_not_pile_up():
    found = []
    pairs = StampedPairs(lambda first, second: found.append((first.text, second.text)))
    for stamp in range(1000, 1020):
        pairs.add_first(Stamped(stamp, "alone"))
    pairs.add_second(Stamped(1000, "too late"))
    pairs.add_first(Stamped(5, "a"))
    pairs.add_second(Stamped(5, "b"))
    assert found == [("a", "b")]
