"""Boxes of one set after the other become tracks.

A box continues the nearest track of its class within the class's gate, good boxes first, then poor ones for the tracks
that are left (Zhang et al. 2022, ByteTrack). Tracks live in the world frame, so that the ego's motion moves none, as
Kalman filters of constant velocity; one without a box coasts on.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from bevformer_ros import geometry
from bevformer_ros.tracking import kalman
from bevformer_ros.tracking.association import Rows, associate
from bevformer_ros.tracking.config import TrackingConfig
from bevformer_ros.tracking.tracks import Tracks3D
from bevformer_ros.types import SECOND_NS, Detections3D

Array = NDArray[np.float64]

_MOST_FACING = 3.0  # so that a wrong front is not held against many boxes that know better


@dataclass(frozen=True)
class _Memory:
    """Tracks in the world frame, as columns of n, oldest first.

    states, covariances: as in kalman. shapes, shape_variances: (n, 5) z, length, width, height, yaw. facing: sum of the
    scores of boxes that look the way of the yaw, less that of those that look the other way. evidence: sum of the
    scores so far. seen_ns: stamp of the last box; the rest is that box's.
    """

    ids: Rows
    labels: Rows
    states: Array
    covariances: Array
    shapes: Array
    shape_variances: Array
    facing: Array
    evidence: Array
    seen_ns: Rows
    scores: Array
    attributes: Rows
    from_proposal: NDArray[np.bool_]
    model_velocities: Array

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, rows: NDArray) -> _Memory:
        return _Memory(**{entry.name: getattr(self, entry.name)[rows] for entry in fields(self)})

    def joined(self, other: _Memory) -> _Memory:
        return _Memory(
            **{
                entry.name: np.concatenate([getattr(self, entry.name), getattr(other, entry.name)])
                for entry in fields(self)
            }
        )

    def with_rows(self, rows: Rows, other: _Memory) -> _Memory:
        """Those rows as in the other."""
        columns = {entry.name: getattr(self, entry.name).copy() for entry in fields(self)}
        for name, column in columns.items():
            column[rows] = getattr(other, name)
        return _Memory(**columns)


class Tracker:
    """Call it with one set after the other. Ids start at 1 and none is given twice, not after a reset either."""

    def __init__(self, config: TrackingConfig | None = None) -> None:
        self.config = config or TrackingConfig()
        column = self.config.classes.column
        self._gates, self._densities = column("gate_m"), column("acceleration_density")
        self._across, self._depth = column("position_std_m"), column("depth_std_share")
        self._speed, self._turn, self._yaw = column("velocity_std_mps"), column("turn_density"), column("yaw_std_rad")
        self._last_id = 0
        self._history_resets = 0
        self.reset()

    def reset(self) -> None:
        """Forget all tracks."""
        self._stamp_ns: int | None = None
        self._memory = self._begin(Detections3D.empty(0), np.zeros((0, 4, 4)))

    def __call__(self, detections: Detections3D, world_from_bev: Array, history_resets: int = 0) -> Tracks3D:
        """The tracks at the detections' stamp in the BEV frame, in the order of their ids.

        world_from_bev: (4, 4) pose of the detections' frame at the stamp. history_resets: how often the detector has
        dropped its history; where that has changed, and at a stamp before the last one, tracking begins anew.
        """
        stamp_ns = detections.stamp_ns
        if (self._stamp_ns is not None and stamp_ns < self._stamp_ns) or history_resets != self._history_resets:
            self.reset()
        self._history_resets = history_resets
        self._advance(stamp_ns)
        boxes = _in_canonical_order(detections.select(detections.scores >= self.config.low_score))
        boxes = boxes.transformed(world_from_bev)
        labels = boxes.labels
        noises = kalman.measurement_noise(
            boxes.centers[:, :2], world_from_bev[:2, 3], self._across[labels], self._depth[labels], self._speed[labels]
        )
        tracks, continued = self._associate(boxes)
        self._continue(tracks, boxes.select(continued), noises[continued])
        new = boxes.scores >= self.config.high_score
        new[continued] = False
        self._memory = self._memory.joined(self._begin(boxes.select(new), noises[new]))
        return self._report(stamp_ns).transformed(geometry.invert(world_from_bev))

    def _advance(self, stamp_ns: int) -> None:
        """Move all tracks to a stamp, without those that were not seen for too long, or not confirmed and missed."""
        memory, last_ns = self._memory, self._stamp_ns
        self._stamp_ns = stamp_ns
        if last_ns is None:
            return
        missed = memory.seen_ns < last_ns
        lives = stamp_ns - memory.seen_ns <= self.config.maximum_coast_s * SECOND_NS
        memory = memory.select(lives & ~(missed & ~self._confirmed(memory)))
        elapsed_s = (stamp_ns - last_ns) / SECOND_NS
        states, covariances = kalman.predict(
            memory.states, memory.covariances, self._densities[memory.labels], elapsed_s
        )
        shape_variances = memory.shape_variances.copy()
        shape_variances[:, 0] += self.config.height_density * elapsed_s
        shape_variances[:, 4] += self._turn[memory.labels] * elapsed_s
        self._memory = replace(memory, states=states, covariances=covariances, shape_variances=shape_variances)

    def _confirmed(self, memory: _Memory) -> NDArray[np.bool_]:
        return memory.evidence >= self.config.confirm_score

    def _associate(self, boxes: Detections3D) -> tuple[Rows, Rows]:
        """Rows of tracks, and of the boxes that continue them."""
        memory, positions = self._memory, boxes.centers[:, :2]
        good = np.flatnonzero(boxes.scores >= self.config.high_score)
        poor = np.flatnonzero(boxes.scores < self.config.high_score)
        tracks, first = associate(memory.states[:, :2], memory.labels, positions[good], boxes.labels[good], self._gates)
        left = np.setdiff1d(np.flatnonzero(self._confirmed(memory)), tracks)
        others, second = associate(
            memory.states[left, :2], memory.labels[left], positions[poor], boxes.labels[poor], self._gates
        )
        return np.concatenate([tracks, left[others]]), np.concatenate([good[first], poor[second]])

    def _continue(self, rows: Rows, boxes: Detections3D, noises: Array) -> None:
        memory = self._memory.select(rows)
        elapsed_s = (boxes.stamp_ns - memory.seen_ns) / SECOND_NS
        repeats = self.config.velocity_memory_s / np.clip(elapsed_s, 1e-3, self.config.velocity_memory_s)
        noises = noises.copy()
        noises[:, 2:, 2:] *= repeats[:, None, None]
        states, covariances = kalman.update(memory.states, memory.covariances, _measured(boxes), noises)
        innovations = _shapes(boxes) - memory.shapes
        turned = geometry.wrap_angle(innovations[:, 4])
        backwards = np.abs(turned) > np.pi / 2  # the ends of a box are told apart less well than its axis
        innovations[:, 4] = geometry.wrap_angle(turned + np.pi * backwards)
        shapes, variances = kalman.walk(
            memory.shapes, memory.shape_variances, innovations, self._shape_noise(boxes.labels)
        )
        facing = np.minimum(memory.facing + np.where(backwards, -boxes.scores, boxes.scores), _MOST_FACING)
        shapes[:, 4] = geometry.wrap_angle(shapes[:, 4] + np.pi * (facing < 0))
        updated = replace(
            self._begin(boxes, noises, memory.ids),
            states=states,
            covariances=covariances,
            shapes=shapes,
            shape_variances=variances,
            facing=np.abs(facing),
            evidence=memory.evidence + boxes.scores,
        )
        self._memory = self._memory.with_rows(rows, updated)

    def _begin(self, boxes: Detections3D, noises: Array, ids: Rows | None = None) -> _Memory:
        """Tracks of one box each; with new ids where none are given."""
        if ids is None:
            ids = self._last_id + 1 + np.arange(len(boxes))
            self._last_id += len(boxes)
        return _Memory(
            ids=ids,
            labels=boxes.labels,
            states=_measured(boxes),
            covariances=noises,
            shapes=_shapes(boxes),
            shape_variances=self._shape_noise(boxes.labels),
            facing=boxes.scores,
            evidence=boxes.scores,
            seen_ns=np.full(len(boxes), boxes.stamp_ns),
            scores=boxes.scores,
            attributes=boxes.attributes,
            from_proposal=boxes.from_proposal,
            model_velocities=boxes.velocities,
        )

    def _shape_noise(self, labels: Rows) -> Array:
        """(n, 5) variances of z, length, width, height, yaw of one box."""
        deviations = np.full((len(labels), 5), self.config.size_std_m)
        deviations[:, 0] = self.config.height_std_m
        deviations[:, 4] = self._yaw[labels]
        return deviations**2

    def _report(self, stamp_ns: int) -> Tracks3D:
        """In the world frame."""
        coasted_s = (stamp_ns - self._memory.seen_ns) / SECOND_NS
        reported = self._confirmed(self._memory) & (coasted_s <= self.config.report_coast_s)
        memory, coasted_s = self._memory.select(reported), coasted_s[reported]
        boxes = Detections3D(
            stamp_ns,
            centers=np.column_stack([memory.states[:, :2], memory.shapes[:, 0]]),
            sizes=memory.shapes[:, 1:4],
            yaws=memory.shapes[:, 4],
            velocities=memory.states[:, 2:],
            scores=memory.scores * 0.5 ** (coasted_s / self.config.score_half_life_s),
            labels=memory.labels,
            attributes=memory.attributes,
            from_proposal=memory.from_proposal,
        )
        return Tracks3D(
            boxes,
            memory.ids,
            memory.covariances,
            memory.shape_variances[:, 0],
            memory.shape_variances[:, 4],
            memory.model_velocities,
            coasted_s,
        )


def _measured(boxes: Detections3D) -> Array:
    return np.concatenate([boxes.centers[:, :2], boxes.velocities], axis=1)


def _shapes(boxes: Detections3D) -> Array:
    return np.column_stack([boxes.centers[:, 2], boxes.sizes, boxes.yaws])


def _in_canonical_order(boxes: Detections3D) -> Detections3D:
    """Best first, equal scores by all else that a box is: ids must not depend on the order in which boxes come."""
    columns = [boxes.attributes, boxes.from_proposal, *boxes.velocities.T, boxes.yaws, *boxes.sizes.T]
    return boxes.select(np.lexsort([*columns, *boxes.centers.T, boxes.labels, -boxes.scores]))
