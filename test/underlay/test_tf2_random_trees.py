"""Lookups in random trees against numpy matrices and scipy's Slerp."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from bevformer_ros import geometry

pytest.importorskip("rclpy")
pytest.importorskip("tf2_ros")

from tf2_ros import Buffer
from transform_messages import at, rotation_of, stamped, translation_of

FRAMES = 12
FIRST, LAST = 1.0, 9.0


class RandomTree:
    """Every frame but the first hangs on an earlier one, by a static link or by one with random samples."""

    def __init__(self, random: np.random.Generator) -> None:
        self.buffer = Buffer()
        self.parents: dict[int, int] = {}
        self.samples: dict[int, tuple[np.ndarray, np.ndarray, Rotation]] = {}
        for frame in range(1, FRAMES):
            self.parents[frame] = int(random.integers(frame))
            static = random.random() < 0.3
            count = 1 if static else int(random.integers(2, 20))
            times = np.unique(np.round(np.concatenate([[FIRST, LAST], random.uniform(FIRST, LAST, count)]), 6))[:count]
            times[-1] = LAST
            translations = random.uniform(-5, 5, (count, 3))
            rotations = Rotation.random(count, rng=random)
            self.samples[frame] = times, translations, rotations
            self._send(frame, static, random.permutation(count))

    def _send(self, frame: int, static: bool, order: np.ndarray) -> None:
        times, translations, rotations = self.samples[frame]
        send = self.buffer.set_transform_static if static else self.buffer.set_transform
        for index in order:
            quaternion = rotations[int(index)].as_quat()
            parent = f"frame{self.parents[frame]}"
            send(stamped(parent, f"frame{frame}", times[index], translations[index], quaternion), "test")

    def root_from(self, frame: int, time: float) -> np.ndarray:
        matrix = np.eye(4)
        while frame:
            times, translations, rotations = self.samples[frame]
            link = np.eye(4)
            if len(times) == 1:
                link[:3, :3], link[:3, 3] = rotations[0].as_matrix(), translations[0]
            else:
                link[:3, :3] = Slerp(times, rotations)(time).as_matrix()
                link[:3, 3] = [np.interp(time, times, column) for column in translations.T]
            matrix = link @ matrix
            frame = self.parents[frame]
        return matrix


@pytest.mark.parametrize("seed", range(20))
def test_lookups_agree_with_composed_matrices(seed):
    random = np.random.default_rng(seed)
    tree = RandomTree(random)
    for _ in range(40):
        target, source, fixed = (int(frame) for frame in random.integers(FRAMES, size=3))
        target_time, source_time = np.round(random.uniform(FIRST, LAST, 2), 9)
        source_now, source_then = tree.root_from(source, target_time), tree.root_from(source, source_time)
        root_from_target = tree.root_from(target, target_time)

        simple = tree.buffer.lookup_transform(f"frame{target}", f"frame{source}", at(target_time))
        np.testing.assert_allclose(matrix_of(simple), geometry.invert(root_from_target) @ source_now, atol=1e-9)

        full = tree.buffer.lookup_transform_full(
            f"frame{target}", at(target_time), f"frame{source}", at(source_time), f"frame{fixed}"
        )
        target_from_fixed = geometry.invert(root_from_target) @ tree.root_from(fixed, target_time)
        fixed_from_source = geometry.invert(tree.root_from(fixed, source_time)) @ source_then
        np.testing.assert_allclose(matrix_of(full), target_from_fixed @ fixed_from_source, atol=1e-9)


def matrix_of(message) -> np.ndarray:
    return geometry.transform(translation_of(message), rotation_of(message))
