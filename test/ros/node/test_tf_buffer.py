"""tf2's buffer under a bag that is played in a loop."""

from __future__ import annotations

import importlib.util

import pytest

tf2_ros = pytest.importorskip("tf2_ros", reason="needs the ROS environment that `make test` makes")

from rclpy.duration import Duration
from rclpy.time import Time

from bevformer_ros import geometry
from bevformer_ros.ros.conversions import transform_to_message
from bevformer_ros.ros.node import tf_buffer
from bevformer_ros.ros.transform_tree import NoTransformError
from bevformer_ros.types import SECOND_NS


def translation(x):
    return geometry.transform((x, 0, 0), (0, 0, 0, 1))


def drive(buffer, x, tenths, children=("base_link",)):
    """Odometry of one pass, the car standing at x."""
    for tenth in tenths:
        for child in children:
            stamp_ns = 5 * SECOND_NS + tenth * SECOND_NS // 10
            buffer.set_transform(transform_to_message(translation(x), "odom", child, stamp_ns), "test")


def x_of(buffer, tenth, child="base_link"):
    found = buffer.lookup_transform("odom", child, Time(nanoseconds=5 * SECOND_NS + tenth * SECOND_NS // 10))
    return found.transform.translation.x


def on_upstreams_buffer(monkeypatch):
    """The module as it is where a ROS 2 is sourced."""
    upstream = pytest.importorskip("upstream_buffer")
    monkeypatch.setattr(tf2_ros, "Buffer", upstream.UpstreamBuffer)
    spec = importlib.util.spec_from_file_location("tf_buffer_on_upstream", tf_buffer.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["as installed", "on upstream's"])
def module(request, monkeypatch):
    return tf_buffer if request.param == "as installed" else on_upstreams_buffer(monkeypatch)


@pytest.fixture
def looping(module):
    """A buffer that has been asked for the car's pose."""
    buffer = module.LoopingBuffer(Duration(seconds=30))
    drive(buffer, 0.0, range(21))
    assert x_of(buffer, 10) == 0.0
    return buffer


def test_a_bag_that_starts_again_makes_the_buffer_forget(looping):
    drive(looping, 100.0, [0])  # the second pass is elsewhere
    assert not looping.can_transform("odom", "base_link", Time(nanoseconds=6 * SECOND_NS))
    drive(looping, 100.0, range(1, 21))
    assert [x_of(looping, tenth) for tenth in (0, 10, 20)] == [100.0] * 3


def test_a_loop_in_which_frames_arrive_skewed_loses_nothing_of_the_new_pass(looping):
    drive(looping, 0.0, range(21), ["base_link", "mast"])
    assert x_of(looping, 10, "mast") == 0.0
    drive(looping, 100.0, range(6))
    drive(looping, 0.0, [21], ["mast"])  # a straggler of the pass before
    drive(looping, 100.0, range(6), ["mast"])
    drive(looping, 100.0, range(6, 21), ["base_link", "mast"])
    for child in ("base_link", "mast"):
        assert [x_of(looping, tenth, child) for tenth in (0, 3, 10, 20)] == [100.0] * 4


def test_frames_that_nobody_asked_for_may_stamp_as_they_like(looping):
    for tenth in range(0, 40, 2):
        drive(looping, 7.0, [21 - tenth % 20], ["arm"])
    assert [x_of(looping, tenth) for tenth in (0, 10, 20)] == [0.0] * 3


def test_slight_disorder_is_no_restart(looping):
    drive(looping, 0.0, [18, 21])
    assert x_of(looping, 0) == 0.0


def test_memory_is_bounded_by_the_cache(looping):
    drive(looping, 0.0, range(21, 1000))
    assert len(looping._kept["base_link"]) <= 301


def test_memory_is_bounded_where_stamps_stand_still(looping):
    drive(looping, 0.0, [21] * 500)
    assert len(looping._kept["base_link"]) <= 22


def test_static_transforms_outlive_a_restart(looping):
    looping.set_transform_static(transform_to_message(translation(2.0), "base_link", "camera", 0), "test")
    assert x_of(looping, 10, "camera") == 2.0
    drive(looping, 100.0, range(21))
    assert x_of(looping, 10, "camera") == 102.0


def test_a_look_up_from_within_a_callback_of_new_data_waits_for_nobody(module):
    looping, found = module.LoopingBuffer(Duration(seconds=30)), []
    if not hasattr(looping, "_new_data_callbacks"):
        pytest.skip("the underlay's buffer has no futures to call back")
    looping._new_data_callbacks.append(lambda: found.append(x_of(looping, 0)))
    drive(looping, 7.0, range(3))
    assert found == [7.0] * 3


def test_both_ways_to_look_up_say_which_frames_matter(module):
    looping = module.LoopingBuffer(Duration(seconds=30))
    drive(looping, 0.0, range(21), ["base_link", "arm"])
    stamps = (Time(nanoseconds=6 * SECOND_NS), Time(nanoseconds=5 * SECOND_NS))
    looping.lookup_transform_full("odom", stamps[0], "base_link", stamps[1], "odom")
    for tenth in (1, 20) * 8:
        drive(looping, 7.0, [tenth], ["arm"])
    assert looping.restless_frames() == []
    assert x_of(looping, 10) == 0.0


def test_two_publishers_of_one_frame_are_suspected(module, looping):
    assert looping.restless_frames() == []
    for tenth in (0, 20) * 8:
        drive(looping, 0.0, [tenth])
    with pytest.raises(NoTransformError, match="stamps of base_link go back again and again: do two nodes publish it"):
        module.TfTransforms(looping).look_up("odom", "base_link", 90 * SECOND_NS)
