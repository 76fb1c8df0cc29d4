"""The messages about the tracks at one set: the same from the node and from the replay of a bag."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bevformer_ros import geometry
from bevformer_ros.ros import topics
from bevformer_ros.ros.conversions import track_kinematics_to_message, tracks_to_message
from bevformer_ros.ros.markers import MarkerWriter
from bevformer_ros.ros.result_messages import marker_lifetime_ns
from bevformer_ros.tracking.tracks import Tracks3D
from bevformer_ros.types import SECOND_NS

TRAIL_S = 3.0
Array = NDArray[np.float64]


class TrackMessages:
    """Turns the tracks of one set after the other into messages; the trails know where they were."""

    def __init__(self, output_frame: str) -> None:
        self.frame = output_frame
        self.markers = MarkerWriter()
        self._trails = Trails()

    def of(
        self,
        tracks_bev: Tracks3D,
        world_from_bev: Array,
        output_from_bev: Array,
        period_ns: float | None,
        wanted: Callable[[str], bool],
    ) -> Iterator[tuple[str, Any]]:
        """(topic, message), as ResultMessages.of; wanted is asked for the markers alone."""
        yield topics.TRACKS, tracks_to_message(tracks_bev, self.frame, output_from_bev)
        yield topics.TRACK_KINEMATICS, track_kinematics_to_message(tracks_bev, self.frame, output_from_bev)
        self._trails.add(tracks_bev.transformed(world_from_bev))
        if wanted(topics.TRACK_MARKERS):
            output_from_world = output_from_bev @ geometry.invert(world_from_bev)
            trails = [geometry.apply(output_from_world, points) for points in self._trails.of(tracks_bev)]
            lifetime_ns = marker_lifetime_ns(period_ns)
            markers = self.markers.write_tracks(tracks_bev, trails, self.frame, output_from_bev, lifetime_ns)
            yield topics.TRACK_MARKERS, markers


class Trails:
    """Where tracks were in the last seconds, in the world frame."""

    def __init__(self) -> None:
        self._points: dict[int, list[tuple[int, Array]]] = {}

    def add(self, tracks: Tracks3D) -> None:
        """Tracks in the world frame; what is older than TRAIL_S, or newer than they are, is forgotten."""
        oldest_ns = tracks.stamp_ns - round(TRAIL_S * SECOND_NS)
        for identity, center in zip(tracks.ids.tolist(), tracks.boxes.centers, strict=True):
            self._points.setdefault(identity, []).append((tracks.stamp_ns, center))
        kept = {
            identity: [entry for entry in points if oldest_ns <= entry[0] <= tracks.stamp_ns]
            for identity, points in self._points.items()
        }
        self._points = {identity: points for identity, points in kept.items() if points}

    def of(self, tracks: Tracks3D) -> list[Array]:
        """(k, 3) for each of the tracks that were added last."""
        return [np.array([point for _, point in self._points[identity]]) for identity in tracks.ids.tolist()]
