"""Sets of several drives: the same, in the same order, whoever renders them."""

from itertools import islice

import numpy as np
import pytest

from bevformer_ros.simulation.drive import Drive, observations
from bevformer_ros.simulation.observe import observe
from bevformer_ros.simulation.rig import BASE_FROM_LIDAR, surround_rig

DRIVES = [Drive(seed, seconds=1.0, rate=2.0, size=(80, 45)) for seed in (4, 3)]


@pytest.mark.parametrize("workers", [0, 2])
def test_no_drives(workers):
    assert list(observations([], workers)) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_every_set_of_every_drive_in_order(workers):
    found = list(observations(DRIVES, workers))
    assert [entry.frame.scene for entry in found] == ["world-4", "world-4", "world-3", "world-3"]
    assert [entry.frame.stamp_ns for entry in found] == 2 * DRIVES[0].reference_stamps
    stamp = DRIVES[1].reference_stamps[1]
    expected = observe(DRIVES[1].world(), surround_rig(80, 45), BASE_FROM_LIDAR, stamp)
    for camera, other in zip(found[3].frame.cameras, expected.frame.cameras, strict=True):
        np.testing.assert_array_equal(camera.image, other.image)
    np.testing.assert_array_equal(found[3].truth.centers, expected.truth.centers)


def test_nobody_has_to_take_all_sets():
    assert len(list(islice(observations([Drive(seed=1, seconds=60.0, size=(80, 45))], workers=1), 2))) == 2
