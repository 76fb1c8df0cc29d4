"""What holds whatever is seen."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bevformer_ros import geometry
from bevformer_ros.taxonomy import CLASS_NAMES, NO_ATTRIBUTE
from bevformer_ros.tracking.config import TrackingConfig
from bevformer_ros.tracking.tracker import Tracker
from bevformer_ros.tracking.tracks import Tracks3D
from bevformer_ros.types import SECOND_NS, Detections3D

# Few values, so that boxes often share one, and ties have to be broken.
_BOX = st.tuples(
    st.integers(-6, 6),  # x
    st.integers(-6, 6),  # y
    st.integers(-3, 3),  # vx
    st.sampled_from([0.05, 0.15, 0.35, 0.9]),
    st.sampled_from([0, 3, 6]),
    st.sampled_from([0.0, 1.5, 3.1]),
)
_SETS = st.lists(
    st.tuples(st.integers(1, 1500), st.lists(_BOX, max_size=8), st.booleans()), min_size=1, max_size=12
)  # milliseconds since the last set, boxes, whether there is a reset before


def boxes_of(stamp_ns, rows) -> Detections3D:
    x, y, vx, scores, labels, yaws = np.array(rows, float).reshape(-1, 6).T
    count = len(rows)
    return Detections3D(
        stamp_ns,
        centers=np.column_stack([x, y, np.ones(count)]),
        sizes=np.tile([4.0, 2.0, 1.5], (count, 1)),
        yaws=yaws,
        velocities=np.column_stack([vx, np.zeros(count)]),
        scores=scores,
        labels=labels.astype(np.int64),
        attributes=np.full(count, NO_ATTRIBUTE),
        from_proposal=np.zeros(count, np.bool_),
    )


def track(sets, shuffle=None) -> list[Tracks3D]:
    tracker, stamp_ns, found = Tracker(), 0, []
    for milliseconds, rows, reset in sets:
        stamp_ns += milliseconds * 1_000_000
        if reset:
            tracker.reset()
        boxes = boxes_of(stamp_ns, rows)
        if shuffle is not None:
            boxes = boxes.select(shuffle.permutation(len(boxes)))
        world_from_bev = geometry.transform_from_rpy((stamp_ns * 1e-9, 2, 0), (0, 0, stamp_ns * 1e-9))
        found.append(tracker(boxes, world_from_bev))
    return found


@settings(deadline=None)
@given(_SETS)
def test_ids_are_unique_and_never_come_back(sets):
    last_label: dict[int, int] = {}
    resets = 0
    born: dict[int, int] = {}
    for (_, rows, reset), tracks in zip(sets, track(sets), strict=True):
        resets += reset
        assert len(set(tracks.ids.tolist())) == len(tracks)
        fresh = tracks.coasted_s == 0
        assert fresh.sum() <= len(rows)
        for identity, label in zip(tracks.ids.tolist(), tracks.boxes.labels.tolist(), strict=True):
            assert born.setdefault(identity, resets) == resets, "an id from before a reset"
            assert last_label.setdefault(identity, label) == label, (
                f"{identity} was a {CLASS_NAMES[last_label[identity]]}"
            )


@settings(deadline=None)
@given(_SETS)
def test_an_id_that_is_gone_for_good_stays_away(sets):
    """No track is silent for longer than it is remembered and then speaks again."""
    longest_ns = TrackingConfig().maximum_coast_s * SECOND_NS
    seen_ns: dict[int, int] = {}
    for tracks in track(sets):
        for identity, coasted_s in zip(tracks.ids.tolist(), tracks.coasted_s, strict=True):
            if coasted_s == 0:
                assert tracks.stamp_ns - seen_ns.get(identity, tracks.stamp_ns) <= longest_ns
                seen_ns[identity] = tracks.stamp_ns


@settings(deadline=None)
@given(_SETS, st.integers(0, 2**32 - 1))
def test_the_order_of_the_boxes_does_not_matter(sets, seed):
    for one, other in zip(track(sets), track(sets, np.random.default_rng(seed)), strict=True):
        for entry in fields(Tracks3D):
            if entry.name != "boxes":
                np.testing.assert_array_equal(getattr(one, entry.name), getattr(other, entry.name))
        np.testing.assert_array_equal(one.boxes.centers, other.boxes.centers)
        np.testing.assert_array_equal(one.boxes.scores, other.boxes.scores)


@settings(deadline=None)
@given(_SETS)
def test_covariances_stay_symmetric_and_positive(sets):
    for tracks in track(sets):
        np.testing.assert_allclose(tracks.covariances, np.swapaxes(tracks.covariances, 1, 2), atol=1e-9)
        assert (np.linalg.eigvalsh(tracks.covariances) > 0).all()
