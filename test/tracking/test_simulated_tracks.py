"""The tracker over drives through the simulated world, whose truth it is given as boxes; nothing is rendered."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from bevformer_ros import geometry
from bevformer_ros.simulation.drive import Drive
from bevformer_ros.simulation.observe import TRUTH_RANGE
from bevformer_ros.simulation.rig import BASE_FROM_LIDAR
from bevformer_ros.tracking.tracker import Tracker


def ids_by_object(drive: Drive, kept: NDArray[np.bool_]) -> dict[tuple[int, int], list[int]]:
    """The ids that each object had, in the order of time; by object and number of its stay in range. kept: (sets,),
    which sets reach the tracker."""
    world, tracker = drive.world(), Tracker()
    stays = np.zeros(len(world.objects.labels), np.int64)
    was_in_range: NDArray[np.bool_] = np.zeros(len(stays), np.bool_)
    found: dict[tuple[int, int], list[int]] = {}
    for stamp_ns, wanted in zip(drive.reference_stamps, kept, strict=True):
        world_from_bev = world.world_from_base(stamp_ns) @ BASE_FROM_LIDAR
        boxes = world.objects_at(stamp_ns).transformed(geometry.invert(world_from_bev))
        in_range = np.abs(boxes.centers[:, :2]).max(axis=1) <= TRUTH_RANGE
        stays += in_range & ~was_in_range
        was_in_range = in_range
        if not wanted:
            continue
        rows = np.flatnonzero(in_range)
        tracks = tracker(boxes.select(rows), world_from_bev)
        tracks = tracks.select(tracks.coasted_s == 0)
        assert len(tracks) == len(rows)
        apart = np.linalg.norm(tracks.boxes.centers[:, None] - boxes.centers[None, rows], axis=-1)
        apart[tracks.boxes.labels[:, None] != boxes.labels[None, rows]] = 1000
        own, true = linear_sum_assignment(apart)
        assert apart[own, true].max() < 1.5
        for identity, row in zip(tracks.ids[own].tolist(), rows[true].tolist(), strict=True):
            found.setdefault((row, int(stays[row])), []).append(identity)
    return found


@pytest.mark.parametrize("seed", [1, 9000, 9001])
@pytest.mark.parametrize("dropped", [0.0, 0.2])
def test_every_object_keeps_its_id(seed, dropped):
    drive = Drive(seed, seconds=20.0, rate=10.0)
    kept = np.random.default_rng(seed).random(len(drive.reference_stamps)) >= dropped
    found = ids_by_object(drive, kept)
    switched = {entry: ids for entry, ids in found.items() if len(set(ids)) > 1}
    assert not switched
    assert sum(map(len, found.values())) > 1000
    assert len({ids[0] for ids in found.values()}) >= 0.9 * len(found)  # one that leaves and comes back may keep its id
