"""The tree against cases done by hand, and against tf2's buffer."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("tf2_ros", reason="compares with tf2: needs the ROS environment that `make test` makes")

from tf2_ros import Buffer
from transform_messages import about_z, stamped

from bevformer_ros.ros.node.tf_buffer import TfTransforms
from bevformer_ros.ros.transform_tree import NoTransformError, TransformTree
from bevformer_ros.types import SECOND_NS


def tree_of(*transforms, cache_ns=None):
    tree = TransformTree(cache_ns)
    for transform in transforms:
        tree.add(transform)
    return tree


def test_an_empty_tree_knows_only_that_a_frame_is_itself():
    tree = TransformTree()
    assert np.array_equal(tree.look_up("map", "map", 5), np.eye(4))
    with pytest.raises(NoTransformError, match="from base to map at 5: they are not connected"):
        tree.look_up("map", "base", 5)


def test_half_way_in_time_is_half_way_on_the_line_and_half_the_turn():
    tree = tree_of(stamped("map", "base", 1, (0, 0, 0)), stamped("map", "base", 3, (4, 0, 2), about_z(90)))
    found = tree.look_up("map", "base", 2 * SECOND_NS)
    half = math.sqrt(0.5)
    assert np.allclose(found[:3, 3], (2, 0, 1))
    assert np.allclose(found[:2, :2], [[half, -half], [half, half]])


@pytest.mark.parametrize("seconds", [0.9, 3.1])
def test_nothing_is_extrapolated(seconds):
    tree = tree_of(stamped("map", "base", 1), stamped("map", "base", 3))
    with pytest.raises(NoTransformError, match="base is known from 1000000000 to 3000000000"):
        tree.look_up("map", "base", round(seconds * SECOND_NS))


def test_a_gap_above_the_frame_where_both_ways_meet_does_not_matter():
    tree = tree_of(stamped("map", "base", 1))
    tree.add_static(stamped("base", "left", 0, (0, 1, 0)))
    tree.add_static(stamped("base", "right", 0, (0, -1, 0)))
    assert np.allclose(tree.look_up("left", "right", 9 * SECOND_NS)[:3, 3], (0, -2, 0))


def test_through_a_frame_that_holds_still():
    tree = tree_of(stamped("odom", "base", 1), stamped("odom", "base", 2, (10, 0, 0)))
    found = tree.look_up_through("base", SECOND_NS, "base", 2 * SECOND_NS, "odom")
    assert np.allclose(found[:3, 3], (10, 0, 0))  # where the later car is, seen from the earlier one


def test_static_takes_the_place_of_moving_and_moving_that_of_static():
    tree = tree_of(stamped("map", "base", 1, (1, 0, 0)))
    tree.add_static(stamped("map", "base", 0, (2, 0, 0)))
    assert tree.look_up("map", "base", 77)[0, 3] == 2
    tree.add(stamped("map", "base", 1, (3, 0, 0)))
    assert tree.look_up("map", "base", SECOND_NS)[0, 3] == 3


def test_a_loop_is_an_error():
    tree = TransformTree()
    tree.add_static(stamped("a", "b"))
    tree.add_static(stamped("b", "a"))
    with pytest.raises(NoTransformError, match="form a loop"):
        tree.look_up("c", "a", 0)


@pytest.mark.parametrize(
    "senseless",
    [
        stamped("base", "base", 1),
        stamped("", "base", 1),
        stamped("map", "", 1),
        stamped("map", "base", 1, (math.nan, 0, 0)),
        stamped("map", "base", 1, (math.inf, 0, 0)),
        stamped("map", "base", 1, rotation=(0, 0, 0, 0)),
    ],
)
def test_senseless_transforms_are_left_out(senseless):
    with pytest.raises(NoTransformError):
        tree_of(senseless).look_up("map", "base", SECOND_NS)


@pytest.mark.parametrize("length", [0.01, 1.006, 7.0])
def test_quaternions_of_any_length_are_rotations(length):
    long = stamped("map", "base", 1, rotation=tuple(length * part for part in about_z(30)))
    unit = stamped("map", "base", 1, rotation=about_z(30))
    buffer = Buffer()
    buffer.set_transform(long, "test")
    expected = tree_of(unit).look_up("map", "base", SECOND_NS)
    assert np.allclose(tree_of(long).look_up("map", "base", SECOND_NS), expected)
    assert np.allclose(TfTransforms(buffer).look_up("map", "base", SECOND_NS), expected)


def test_only_the_cache_is_kept_and_a_step_back_in_time_begins_anew():
    cached = tree_of(
        *(stamped("map", "base", second, (second, 0, 0)) for second in range(1, 9)), cache_ns=3 * SECOND_NS
    )
    assert cached.look_up("map", "base", 6 * SECOND_NS)[0, 3] == 6
    with pytest.raises(NoTransformError):
        cached.look_up("map", "base", 2 * SECOND_NS)
    cached.add(stamped("map", "base", 7.6, (7.6, 0, 0)))  # slight disorder
    assert cached.look_up("map", "base", 6 * SECOND_NS)[0, 3] == 6
    cached.add(stamped("map", "other", 6, (5, 0, 0)))
    cached.add(stamped("map", "base", 1, (100, 0, 0)))
    assert cached.look_up("map", "other", 6 * SECOND_NS)[0, 3] == 5
    assert cached.look_up("map", "base", SECOND_NS)[0, 3] == 100
    with pytest.raises(NoTransformError):
        cached.look_up("map", "base", 6 * SECOND_NS)


@pytest.mark.parametrize("seed", range(20))
def test_random_trees_answer_as_tf2_does(seed):
    """Moving and static frames, samples in disorder, times inside and outside: the same poses, the same refusals."""
    random = np.random.default_rng(seed)
    frames = [f"frame{number}" for number in range(6)]
    buffer, tree = Buffer(), TransformTree()
    for number, child in enumerate(frames[1:], start=1):
        parent = frames[random.integers(number)]
        static = random.random() < 0.3
        for seconds in random.permutation(np.arange(1, 9)) if not static else [0]:
            quaternion = random.standard_normal(4)
            pose = random.standard_normal(3), quaternion / np.linalg.norm(quaternion)
            message = stamped(parent, child, float(seconds), *pose)
            (buffer.set_transform_static if static else buffer.set_transform)(message, "test")
            (tree.add_static if static else tree.add)(message)
    answers = 0
    for _ in range(50):
        target, source, fixed = random.choice(frames, 3)
        stamps = [int(stamp) for stamp in random.uniform(0.8, 8.3, 2) * SECOND_NS]
        question = (target, stamps[0], source, stamps[1], fixed)
        try:
            expected = TfTransforms(buffer).look_up_through(*question)
        except NoTransformError:
            with pytest.raises(NoTransformError):
                tree.look_up_through(*question)
            continue
        np.testing.assert_allclose(tree.look_up_through(*question), expected, atol=1e-9)
        answers += 1
    assert answers > 5
