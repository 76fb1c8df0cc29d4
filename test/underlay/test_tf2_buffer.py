"""tf2_ros.Buffer without DDS. Only upstream's interface is used: with a ROS 2 sourced, this checks upstream itself."""

from __future__ import annotations

import re
import threading
import time as wall_time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("rclpy")
tf2_ros = pytest.importorskip("tf2_ros")

from rclpy.duration import Duration
from rclpy.time import Time
from tf2_ros import (
    Buffer,
    ConnectivityException,
    ExtrapolationException,
    InvalidArgumentException,
    LookupException,
    TransformException,
)
from transform_messages import about_z, at, rotation_of, stamped, translation_of

LATEST = Time()


@pytest.fixture
def buffer() -> Buffer:
    return Buffer()


def fill(buffer: Buffer, *transforms) -> Buffer:
    for transform in transforms:
        buffer.set_transform(transform, "test")
    return buffer


def x_of(buffer: Buffer, target: str, source: str, time: Time) -> float:
    return translation_of(buffer.lookup_transform(target, source, time))[0]


# --- What is not there


def test_an_empty_buffer_knows_no_frame(buffer):
    with pytest.raises(LookupException, match=r'"map".*target_frame does not exist'):
        buffer.lookup_transform("map", "base", at(1))
    assert not buffer.can_transform("map", "base", at(1))
    assert not buffer.can_transform("map", "base", LATEST)


def test_all_exceptions_are_transform_exceptions():
    names = ("Lookup", "Connectivity", "Extrapolation", "InvalidArgument", "Timeout")
    assert all(issubclass(getattr(tf2_ros, f"{name}Exception"), TransformException) for name in names)


def test_the_source_frame_is_named_when_only_it_is_unknown(buffer):
    fill(buffer, stamped("map", "base", 1))
    with pytest.raises(LookupException, match=r'"camera".*source_frame does not exist'):
        buffer.lookup_transform("map", "camera", at(1))


def test_upstream_answers_identity_for_a_frame_seen_from_itself_even_if_unknown(buffer):
    found = buffer.lookup_transform("nowhere", "nowhere", at(3))
    assert (translation_of(found), rotation_of(found)) == ((0, 0, 0), (0, 0, 0, 1))
    assert found.header.stamp == at(3).to_msg()
    assert buffer.can_transform("nowhere", "nowhere", at(3))


def test_the_latest_identity_carries_the_frames_newest_stamp(buffer):
    fill(buffer, stamped("map", "base", 1), stamped("map", "base", 2))
    assert buffer.lookup_transform("base", "base", LATEST).header.stamp == at(2).to_msg()
    assert buffer.lookup_transform("map", "map", LATEST).header.stamp == at(0).to_msg()


@pytest.mark.parametrize("frame", ["", "/base"])
def test_upstream_refuses_an_empty_frame_and_a_leading_slash_in_a_lookup(buffer, frame):
    fill(buffer, stamped("map", "base", 1))
    with pytest.raises(InvalidArgumentException, match=re.escape(f'"{frame}"')):
        buffer.lookup_transform("map", frame, at(1))
    assert not buffer.can_transform("map", frame, at(1))


def test_upstream_strips_a_leading_slash_from_what_it_is_given(buffer):
    fill(buffer, stamped("/map", "/base", 1, (1, 0, 0)))
    assert x_of(buffer, "map", "base", at(1)) == 1


def test_unconnected_trees(buffer):
    fill(buffer, stamped("map", "base", 1), stamped("elsewhere", "camera", 1))
    for time in (at(1), LATEST):
        with pytest.raises(ConnectivityException, match=r"'map' and 'camera'.*not part of the same tree"):
            buffer.lookup_transform("map", "camera", time)
        assert not buffer.can_transform("map", "camera", time)


def test_upstream_names_the_missing_data_rather_than_the_missing_connection(buffer):
    fill(buffer, stamped("map", "base", 1), stamped("elsewhere", "camera", 1))
    with pytest.raises(ExtrapolationException):
        buffer.lookup_transform("map", "camera", at(5))


def test_a_loop_is_reported(buffer):
    fill(buffer, stamped("a", "b", 1), stamped("b", "c", 1), stamped("c", "a", 1), stamped("map", "base", 1))
    for time in (at(1), LATEST):
        with pytest.raises(LookupException, match="loop"):
            buffer.lookup_transform("map", "a", time)


# --- Ways through the tree


@pytest.fixture
def tree() -> Buffer:
    """map - odom - base - (left, right), at 1 s; base turned left by 90 degrees."""
    return fill(
        Buffer(),
        stamped("map", "odom", 1, (100, 0, 0)),
        stamped("odom", "base", 1, (10, 0, 0), about_z(90)),
        stamped("base", "left", 1, (0, 1, 0)),
        stamped("base", "right", 1, (0, -1, 0)),
    )


@pytest.mark.parametrize(
    ("target", "source", "expected"),
    [
        ("odom", "base", (10, 0, 0)),
        ("base", "odom", (0, 10, 0)),
        ("map", "base", (110, 0, 0)),
        ("map", "left", (109, 0, 0)),
        ("left", "map", (0, 109, 0)),
        ("left", "right", (0, -2, 0)),
    ],
)
def test_parents_children_and_siblings(tree, target, source, expected):
    found = tree.lookup_transform(target, source, at(1))
    assert translation_of(found) == pytest.approx(expected, abs=1e-12)
    assert (found.header.frame_id, found.child_frame_id) == (target, source)
    assert found.header.stamp == at(1).to_msg()
    assert tree.can_transform(target, source, at(1))


def test_links_above_the_common_ancestor_need_no_data(tree):
    fill(tree, stamped("base", "left", 2, (0, 1, 0)), stamped("base", "right", 2, (0, -3, 0)))
    assert translation_of(tree.lookup_transform("left", "right", at(2))) == pytest.approx((0, -4, 0))
    fill(tree, stamped("odom", "base", 2, (20, 0, 0)))
    assert x_of(tree, "odom", "base", at(2)) == 20


def test_times_may_be_messages(tree):
    assert x_of(tree, "odom", "base", at(1).to_msg()) == 10


def test_all_frames_as_string_names_children_and_parents(tree):
    assert "Frame left exists with parent base." in tree.all_frames_as_string()


# --- Time


def test_between_two_stamps_the_translation_is_linear_and_the_rotation_slerps(buffer):
    fill(buffer, stamped("map", "base", 1, (0, 0, 0), about_z(0)), stamped("map", "base", 3, (4, -2, 8), about_z(90)))
    found = buffer.lookup_transform("map", "base", at(1.5))
    assert translation_of(found) == pytest.approx((1, -0.5, 2))
    assert rotation_of(found) == pytest.approx(about_z(22.5))
    assert found.header.stamp == at(1.5).to_msg()


def test_the_rotation_takes_the_shorter_arc_whatever_the_signs_of_the_quaternions(buffer):
    negated = tuple(-part for part in about_z(90))
    fill(buffer, stamped("map", "base", 1, rotation=about_z(0)), stamped("map", "base", 3, rotation=negated))
    found = rotation_of(buffer.lookup_transform("map", "base", at(2)))
    assert abs(sum(a * b for a, b in zip(found, about_z(45), strict=True))) == pytest.approx(1)


@pytest.mark.parametrize("seconds", [1, 2, 3])
def test_at_a_stored_stamp_the_stored_transform_comes_back(buffer, seconds):
    fill(buffer, *(stamped("map", "base", second, (10 * second, 0, 0)) for second in (3, 1, 2)))
    assert x_of(buffer, "map", "base", at(seconds)) == 10 * seconds


def test_stamps_are_exact_to_the_nanosecond_at_todays_epoch(buffer):
    start = 1_790_000_000 * 10**9
    for nanoseconds, x in ((start, 0.0), (start + 3, 3.0)):
        message = stamped("map", "base", 0, (x, 0, 0))
        message.header.stamp = Time(nanoseconds=nanoseconds).to_msg()
        fill(buffer, message)
    assert x_of(buffer, "map", "base", Time(nanoseconds=start + 1)) == pytest.approx(1)
    with pytest.raises(ExtrapolationException):
        buffer.lookup_transform("map", "base", Time(nanoseconds=start + 4))


@pytest.mark.parametrize(
    ("stored", "asked", "message"),
    [
        ((1, 2), 2.5, r"into the future\. +Requested time 2\.50* but the latest data is at time 2\.0"),
        ((1, 2), 0.5, r"into the past\. +Requested time 0\.50* but the earliest data is at time 1\.0"),
        ((1,), 1.5, r"at time 1\.50*, but only time 1\.0* is in the buffer"),
        ((1,), 0.5, r"at time 0\.50*, but only time 1\.0* is in the buffer"),
    ],
)
@pytest.mark.parametrize(("target", "source"), [("map", "base"), ("base", "map")])
def test_extrapolation_is_refused_with_frames_and_times(buffer, stored, asked, message, target, source):
    fill(buffer, *(stamped("map", "base", second) for second in stored))
    with pytest.raises(ExtrapolationException, match=message) as caught:
        buffer.lookup_transform(target, source, at(asked))
    assert f"from frame [{source}] to frame [{target}]" in str(caught.value)
    assert not buffer.can_transform(target, source, at(asked))


def test_a_single_transform_serves_its_own_stamp_and_the_latest(buffer):
    fill(buffer, stamped("map", "base", 1, (7, 0, 0)))
    assert x_of(buffer, "map", "base", at(1)) == 7
    assert x_of(buffer, "map", "base", LATEST) == 7


def test_time_zero_is_the_latest_common_time_of_the_moving_links(buffer):
    buffer.set_transform_static(stamped("base", "camera", 50, (0, 0, 1)), "test")
    fill(buffer, stamped("map", "odom", 1), stamped("map", "odom", 2, (100, 0, 0)))
    fill(buffer, stamped("odom", "base", 1), stamped("odom", "base", 4, (30, 0, 0)))
    for target, source, sign in (("map", "camera", 1), ("camera", "map", -1)):
        found = buffer.lookup_transform(target, source, LATEST)
        assert found.header.stamp == at(2).to_msg()
        assert translation_of(found) == pytest.approx((sign * 110, 0, sign * 1))


def test_a_link_above_the_common_ancestor_does_not_limit_the_latest_common_time(buffer):
    fill(buffer, stamped("map", "base", 1), stamped("base", "left", 3), stamped("base", "right", 2))
    fill(buffer, stamped("base", "left", 2))
    assert buffer.lookup_transform("left", "right", LATEST).header.stamp == at(2).to_msg()


def test_static_transforms_hold_at_every_time_and_are_stamped_with_the_time_asked_for(buffer):
    buffer.set_transform_static(stamped("base", "camera", 50, (1, 2, 3)), "test")
    for time in (at(0.1), at(1000), LATEST):
        found = buffer.lookup_transform("base", "camera", time)
        assert translation_of(found) == (1, 2, 3)
        assert found.header.stamp == time.to_msg()


# --- What the buffer keeps


def test_data_older_than_the_cache_time_is_ignored_and_logged(buffer):
    fill(buffer, stamped("map", "base", 100), stamped("map", "base", 89.9), stamped("map", "base", 90))
    assert buffer.can_transform("map", "base", at(90))
    assert not buffer.can_transform("map", "base", at(89.9))


def test_the_default_cache_is_ten_seconds(buffer):
    """Whether data are pruned before or after an insertion differs between upstream's versions."""
    fill(buffer, *(stamped("map", "base", second) for second in (1, 11)))
    assert buffer.can_transform("map", "base", at(1))
    fill(buffer, *(stamped("map", "base", second) for second in (12, 13)))
    assert not buffer.can_transform("map", "base", at(1))
    assert buffer.can_transform("map", "base", at(11.5))


def test_the_cache_time_can_be_chosen():
    short = fill(Buffer(Duration(seconds=2)), *(stamped("map", "base", second) for second in (1, 2, 3, 4, 5)))
    assert not short.can_transform("map", "base", at(1))
    assert short.can_transform("map", "base", at(2))


def test_an_exact_repeat_changes_no_answer(buffer):
    """Upstream's older versions keep the repeat and word the exception otherwise."""
    once = stamped("map", "base", 1, (1, 0, 0))
    fill(buffer, once, once)
    assert x_of(buffer, "map", "base", at(1)) == 1
    with pytest.raises(ExtrapolationException):
        buffer.lookup_transform("map", "base", at(2))


def test_upstream_answers_a_stamp_that_came_twice_with_what_came_last(buffer):
    fill(buffer, stamped("map", "base", 1), stamped("map", "base", 2, (5, 0, 0)))
    fill(buffer, stamped("map", "base", 2, (9, 0, 0)))
    assert x_of(buffer, "map", "base", at(2)) == 9
    assert x_of(buffer, "map", "base", at(1.5)) == pytest.approx(2.5), "interpolation goes to what came first"
    fill(buffer, stamped("map", "base", 3, (19, 0, 0)))
    assert x_of(buffer, "map", "base", at(2)) == 9
    assert x_of(buffer, "map", "base", at(2.5)) == pytest.approx(14)


def test_upstream_answers_the_earliest_stamp_that_came_twice_with_what_came_first(buffer):
    fill(buffer, stamped("map", "base", 1, (1, 0, 0)), stamped("map", "base", 1, (2, 0, 0)), stamped("map", "base", 2))
    assert x_of(buffer, "map", "base", at(1)) == 1


def test_between_two_parents_upstream_holds_the_older_transform(buffer):
    fill(buffer, stamped("map", "left", 1), stamped("map", "left", 9), stamped("map", "right", 1))
    fill(buffer, stamped("map", "right", 9, (100, 0, 0)))
    fill(buffer, stamped("left", "load", 2, (1, 0, 0)), stamped("right", "load", 4, (2, 0, 0)))
    assert x_of(buffer, "map", "load", at(3)) == 1
    assert x_of(buffer, "map", "load", at(4)) == pytest.approx(37.5 + 2)
    assert x_of(buffer, "right", "load", LATEST) == 2


def test_a_frame_may_turn_static_and_moving_again_losing_what_was_there(buffer):
    fill(buffer, stamped("map", "base", 1, (1, 0, 0)))
    buffer.set_transform_static(stamped("map", "base", 0, (2, 0, 0)), "test")
    assert x_of(buffer, "map", "base", at(77)) == 2
    fill(buffer, stamped("map", "base", 3, (3, 0, 0)))
    assert not buffer.can_transform("map", "base", at(1))
    assert x_of(buffer, "map", "base", at(3)) == 3


def test_a_static_transform_is_replaced_by_the_next(buffer):
    for x in (1, 2):
        buffer.set_transform_static(stamped("map", "base", 0, (x, 0, 0)), "test")
    assert x_of(buffer, "map", "base", at(5)) == 2


@pytest.mark.parametrize(
    "faulty",
    [
        stamped("map", "map", 1),
        stamped("map", "", 1),
        stamped("", "base", 1),
        stamped("map", "base", 1, (float("nan"), 0, 0)),
        stamped("map", "base", 1, rotation=(0, 0, float("nan"), 1)),
        stamped("map", "base", 1, rotation=(0, 0, 0, 0)),
    ],
    ids=["self", "no child", "no parent", "nan translation", "nan rotation", "no rotation"],
)
def test_faulty_transforms_are_ignored(buffer, faulty):
    buffer.set_transform(faulty, "test")
    buffer.set_transform_static(faulty, "test")
    assert not buffer.can_transform("map", "base", LATEST)
    assert buffer.all_frames_as_string() == ""


@pytest.mark.parametrize("length", [1.004, 0.5, 7.0])
def test_upstream_normalises_quaternions_of_any_length(buffer, length):
    fill(buffer, stamped("map", "base", 1, rotation=tuple(length * part for part in about_z(30))))
    assert rotation_of(buffer.lookup_transform("map", "base", at(1))) == pytest.approx(about_z(30))


def test_clear_forgets_moving_links_but_upstream_keeps_static_ones_and_names(buffer):
    buffer.set_transform_static(stamped("base", "camera"), "test")
    fill(buffer, stamped("map", "base", 1))
    buffer.clear()
    assert buffer.can_transform("base", "camera", at(1))
    with pytest.raises(ExtrapolationException):
        buffer.lookup_transform("map", "base", at(1))
    with pytest.raises(ConnectivityException):
        buffer.lookup_transform("map", "base", LATEST)
    fill(buffer, stamped("map", "base", 0.5, (3, 0, 0)))
    assert x_of(buffer, "map", "camera", at(0.5)) == 3, "after a jump back, earlier data is welcome"


# --- Two times, through a fixed frame


@pytest.fixture
def drive() -> Buffer:
    """A car drives from 0 to 20 m in odom between 1 s and 3 s, with a camera one metre ahead of its base."""
    buffer = fill(Buffer(), stamped("odom", "base", 1), stamped("odom", "base", 3, (20, 0, 0)))
    buffer.set_transform_static(stamped("base", "camera", 0, (1, 0, 0)), "test")
    return buffer


def test_full_lookup_takes_the_motion_between_the_two_times_into_account(drive):
    found = drive.lookup_transform_full("camera", at(1.5), "base", at(2), "odom")
    assert translation_of(found) == pytest.approx((10 - 5 - 1, 0, 0))
    assert (found.header.frame_id, found.child_frame_id) == ("camera", "base")
    assert found.header.stamp == at(1.5).to_msg(), "upstream stamps the result with the target time"
    assert drive.can_transform_full("camera", at(1.5), "base", at(2), "odom")


def test_full_lookup_of_a_frame_from_itself_is_its_motion(drive):
    assert translation_of(drive.lookup_transform_full("base", at(1), "base", at(3), "odom")) == pytest.approx(
        (20, 0, 0)
    )


@pytest.mark.parametrize(
    ("arguments", "exception", "message"),
    [
        (("camera", at(2), "base", at(2), "map"), LookupException, '"map".*fixed_frame does not exist'),
        (("lidar", at(2), "lidar", at(2), "odom"), LookupException, '"lidar".*target_frame does not exist'),
        (("camera", at(2), "base", at(4), "odom"), ExtrapolationException, "into the future"),
        (("camera", at(0.5), "base", at(2), "odom"), ExtrapolationException, "into the past"),
    ],
)
def test_full_lookup_failures(drive, arguments, exception, message):
    with pytest.raises(exception, match=message):
        drive.lookup_transform_full(*arguments)
    assert not drive.can_transform_full(*arguments)


# --- Waiting, and threads


def test_a_wait_that_runs_out_raises_what_the_lookup_itself_would(drive):
    with pytest.raises(ExtrapolationException, match="into the future"):
        drive.lookup_transform("odom", "base", at(9), Duration(seconds=0.05))
    with pytest.raises(LookupException):
        drive.lookup_transform_full("base", at(2), "base", at(2), "moon", Duration(seconds=0.05))
    assert not drive.can_transform("odom", "base", at(9), Duration(seconds=0.05))


def test_a_wait_ends_when_the_transform_arrives(drive):
    began = wall_time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        simple = pool.submit(drive.lookup_transform, "odom", "base", at(4), Duration(seconds=60))
        full = pool.submit(drive.lookup_transform_full, "camera", at(4), "base", at(2), "odom", Duration(seconds=60))
        fill(drive, stamped("odom", "base", 3.5, (25, 0, 0)))
        fill(drive, stamped("odom", "base", 4, (30, 0, 0)))
        assert translation_of(simple.result()) == (30, 0, 0)
        assert translation_of(full.result()) == pytest.approx((10 - 30 - 1, 0, 0))
    assert wall_time.monotonic() - began < 30


def test_a_wait_for_a_static_transform_ends_when_it_arrives(buffer):
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(buffer.can_transform, "base", "camera", at(4), Duration(seconds=60))
        buffer.set_transform_static(stamped("base", "camera"), "test")
        assert found.result()


def test_readers_and_writers_in_many_threads_see_whole_transforms():
    buffer = fill(Buffer(Duration(seconds=1)), stamped("odom", "base", 1, (1, 1, 1)))
    done = threading.Event()

    def write():
        for step in range(2000):
            second = 1 + step * 0.01
            fill(buffer, stamped("odom", "base", second, (second, second, second)))
        done.set()

    def read() -> int:
        lookups = 0
        while not done.is_set():
            found = buffer.lookup_transform("odom", "base", LATEST)
            stamp = Time.from_msg(found.header.stamp).nanoseconds * 1e-9
            assert translation_of(found) == pytest.approx((stamp, stamp, stamp))
            lookups += 1
        return lookups

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        pool.submit(write).result()
        assert all(reader.result() > 0 for reader in readers)
