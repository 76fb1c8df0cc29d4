"""Boxes of the simulated world, a detector's or the truth's own, tracked and scored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from bevformer_ros.evaluation.simulated_world import Observed
from bevformer_ros.evaluation.tracking import IdentifiedBoxes, TrackedSample, TrackingScores, score_tracks
from bevformer_ros.tracking.config import TrackingConfig
from bevformer_ros.tracking.tracker import Tracker
from bevformer_ros.types import Detections3D


def score_tracked(sets: Iterable[tuple[Observed, Detections3D]], config: TrackingConfig) -> TrackingScores:
    """Every drive tracked by itself, against the visible objects. sets: as simulated_world gives them, boxes in the BEV
    frame."""
    tracker, scenes = Tracker(config), defaultdict[str, list[TrackedSample]](list)
    for observed, boxes in sets:
        if observed.scene not in scenes:
            tracker.reset()
        world_from_bev = observed.world_from_bev
        tracks = tracker(boxes, world_from_bev)
        scenes[observed.scene].append(
            TrackedSample(
                boxes.stamp_ns,
                IdentifiedBoxes(tracks.boxes.transformed(world_from_bev), tuple(map(str, tracks.ids))),
                IdentifiedBoxes(observed.truth.transformed(world_from_bev), tuple(map(str, observed.object_ids))),
                world_from_bev[:3, 3],
            )
        )
    return score_tracks(scenes)
