"""The world: the same for the same seed, exact in its velocities, free of collisions."""

from dataclasses import fields

import cv2
import numpy as np
import pytest

from bevformer_ros import geometry
from bevformer_ros.simulation.world import START_NS, World
from bevformer_ros.taxonomy import ATTRIBUTE_ID, ATTRIBUTE_NAMES, CLASS_ID, CLASS_NAMES, CLASSES
from bevformer_ros.types import SECOND_NS


@pytest.fixture(scope="module")
def world() -> World:
    return World.make(seed=7, duration_s=20.0)


def test_duration_must_be_positive():
    with pytest.raises(ValueError, match="duration_s is 0"):
        World.make(seed=0, duration_s=0)


def test_a_seed_gives_one_world():
    first, second, other = World.make(3), World.make(3), World.make(4)
    for entry in fields(first.objects):
        np.testing.assert_array_equal(getattr(first.objects, entry.name), getattr(second.objects, entry.name))
    np.testing.assert_array_equal(first.scenery.centers, second.scenery.centers)
    np.testing.assert_array_equal(first.world_from_base(START_NS), second.world_from_base(START_NS))
    assert not np.array_equal(first.world_from_base(START_NS), other.world_from_base(START_NS))


def test_all_classes_occur_in_their_sizes():
    labels = np.concatenate([World.make(seed).objects.labels for seed in range(4)])
    assert set(labels) == set(range(len(CLASS_NAMES)))
    objects = World.make(0).objects
    upright = objects.labels != CLASS_ID["bicycle"]
    upright &= objects.labels != CLASS_ID["motorcycle"]
    canonical = np.array([entry.canonical_size for entry in CLASSES])[objects.labels]
    assert (np.abs(objects.sizes / canonical - 1)[upright] <= 0.12 + 1e-9).all()


def test_attributes_fit_the_classes(world):
    boxes = world.objects_at(START_NS)
    for label, attribute in zip(boxes.labels, boxes.attributes, strict=True):
        allowed = CLASSES[label].attributes
        assert (ATTRIBUTE_NAMES[attribute] in allowed) if allowed else attribute == -1


@pytest.mark.parametrize("seconds", [0.0, 4.3, 17.9])
def test_velocities_are_the_derivatives_of_the_positions(world, seconds):
    stamp, step = START_NS + round(seconds * SECOND_NS), SECOND_NS // 100
    before, now, after = (world.objects_at(stamp + offset) for offset in (-step, 0, step))
    np.testing.assert_allclose((after.centers - before.centers)[:, :2] / 0.02, now.velocities, atol=2e-3)
    moving = np.linalg.norm(now.velocities, axis=1) > 0.1
    direction = np.arctan2(now.velocities[moving, 1], now.velocities[moving, 0])
    np.testing.assert_allclose(geometry.wrap_angle(direction - now.yaws[moving]), 0.0, atol=1e-6)

    poses = [world.world_from_base(stamp + offset) for offset in (-step, step)]
    np.testing.assert_allclose((poses[1] - poses[0])[:2, 3] / 0.02, world.ego_velocity(stamp), atol=2e-3)


def test_some_egos_turn_left_some_right_and_some_go_straight_on():
    turns = []
    for seed in range(16):
        world = World.make(seed)
        yaws = [geometry.yaw_of(world.world_from_base(START_NS + second * SECOND_NS)) for second in range(21)]
        turns.append(np.unwrap(yaws)[-1] - yaws[0])
    assert max(turns) > 1.2
    assert min(turns) < -1.2
    assert sum(abs(turn) < 0.9 for turn in turns) > 6


def test_vehicles_wait_drive_on_and_turn_and_people_cross_streets():
    stopped_and_moved = turned = crossed = 0
    for seed in range(4):
        world = World.make(seed)
        states = [world.objects_at(START_NS + second * SECOND_NS) for second in range(21)]
        attributes = np.array([state.attributes for state in states])
        by_name = {name: (attributes == ATTRIBUTE_ID[name]).any(axis=0) for name in ATTRIBUTE_NAMES}
        stopped_and_moved += (by_name["vehicle.moving"] & by_name["vehicle.stopped"]).sum()
        yaws = np.unwrap([state.yaws for state in states], axis=0)
        turned += (np.ptp(yaws, axis=0) > 1.2).sum()
        walked = np.linalg.norm(states[-1].centers - states[0].centers, axis=1)
        crossed += (by_name["pedestrian.moving"] & by_name["pedestrian.standing"] & (walked > 6)).sum()
    assert stopped_and_moved > 10
    assert turned >= 4
    assert crossed >= 4


@pytest.mark.parametrize("seed", range(12))
def test_nothing_runs_into_anything(seed):
    world = World.make(seed, duration_s=20.0)
    for second in (0, 7, 14, 20):
        stamp = START_NS + second * SECOND_NS
        boxes, ego = world.objects_at(stamp), world.world_from_base(stamp)
        near = np.flatnonzero(np.linalg.norm(boxes.centers[:, :2] - ego[:2, 3], axis=1) < 90)
        plans = boxes.corners()[near][:, [0, 1, 5, 4], :2].astype(np.float32)
        car = geometry.apply(ego, geometry.box_corners([[1.4, 0, 0.8]], [[4.5, 1.9, 1.6]], [0.0])[0])
        plans = np.ascontiguousarray([*plans, car[[0, 1, 5, 4], :2]], dtype=np.float32)
        names = [*(CLASS_NAMES[label] for label in boxes.labels[near]), "ego"]
        centers = plans.mean(axis=1)
        for first in range(len(plans)):
            for second_index in range(first):
                if np.linalg.norm(centers[first] - centers[second_index]) < 14:
                    overlap, _ = cv2.intersectConvexConvex(plans[first], plans[second_index])
                    assert overlap < 0.02, f"{names[first]} overlaps {names[second_index]} by {overlap} m2"
