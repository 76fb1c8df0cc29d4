"""Boxes for RViz: a cube, a heading, a velocity arrow and a text per detection; of a track a trail too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from bevformer_ros import geometry
from bevformer_ros.ros.conversions import header_of, point_message, quaternion_message, vector_message
from bevformer_ros.ros.messages import ColorRGBA, Duration, Header, Marker, MarkerArray, Pose, Vector3
from bevformer_ros.taxonomy import CLASS_NAMES, CLASSES
from bevformer_ros.tracking.tracks import Tracks3D
from bevformer_ros.types import SECOND_NS, Detections3D

BOX_OPACITY = 0.45
SLOWEST_ARROW = 0.2  # m/s; slower boxes get no velocity arrow
_HEADING_COLOUR = ColorRGBA(r=1.0, g=1.0, b=1.0, a=0.9)
_LINE_WIDTH = 0.08
_ARROW_SCALE = Vector3(x=0.15, y=0.4, z=0.4)  # shaft, head diameter, head length
_TEXT_HEIGHT = 0.8
_TEXT_GAP = 0.6
_MARKER_NUMBERS = 2**31


class MarkerWriter:
    """Turns one detection after the other into markers, deleting those that the last one had and this one lacks."""

    def __init__(self) -> None:
        self._shown: set[tuple[str, int]] = set()

    def write(
        self, detections: Detections3D, frame_id: str, frame_from_boxes: NDArray[np.float64], lifetime_ns: int
    ) -> MarkerArray:
        """Markers in frame_id, (4, 4) from the boxes' own frame; each vanishes after the lifetime (0: never)."""
        rows = range(len(detections))
        markers = [marker for row in rows for marker in _markers_of(detections, frame_from_boxes, row, row, "")]
        return self._changes(markers, header_of(detections.stamp_ns, frame_id), lifetime_ns)

    def write_tracks(
        self,
        tracks: Tracks3D,
        trails: Sequence[NDArray[np.float64]],
        frame_id: str,
        frame_from_tracks: NDArray[np.float64],
        lifetime_ns: int,
    ) -> MarkerArray:
        """The same of tracks, numbered by their ids, with trails (k, 3), one for each track, in frame_id."""
        markers = []
        for row, (identity, trail) in enumerate(zip(tracks.ids.tolist(), trails, strict=True)):
            number = identity % _MARKER_NUMBERS
            markers += [
                *_markers_of(tracks.boxes, frame_from_tracks, row, number, f"{identity} "),
                _trail(tracks.boxes, row, number, trail),
            ]
        return self._changes(markers, header_of(tracks.stamp_ns, frame_id), lifetime_ns)

    def _changes(self, markers: list[Marker], header: Header, lifetime_ns: int) -> MarkerArray:
        seconds, nanoseconds = divmod(lifetime_ns, SECOND_NS)
        for marker in markers:
            marker.header = header
            marker.lifetime = Duration(sec=seconds, nanosec=nanoseconds)
        shown = {(marker.ns, marker.id) for marker in markers}
        stale = [
            Marker(header=header, ns=namespace, id=identity, action=Marker.DELETE)
            for namespace, identity in sorted(self._shown - shown)
        ]
        self._shown = shown
        return MarkerArray(markers=stale + markers)

    def delete_all(self, header: Header) -> MarkerArray:
        self._shown = set()
        return MarkerArray(markers=[Marker(header=header, action=Marker.DELETEALL)])


def _markers_of(
    detections: Detections3D, frame_from_boxes: NDArray[np.float64], index: int, number: int, prefix: str
) -> Iterator[Marker]:
    """Of one box. number: the markers'. prefix: of the text."""
    size, yaw = detections.sizes[index], float(detections.yaws[index])
    frame_from_box = frame_from_boxes @ geometry.transform_from_rpy(detections.centers[index], (0.0, 0.0, yaw))
    center, quaternion = frame_from_box[:3, 3], geometry.quaternion_xyzw(frame_from_box)
    label = detections.labels[index]
    red, green, blue = (channel / 255 for channel in CLASSES[label].colour)

    box = Marker(ns="boxes", id=number, type=Marker.CUBE, action=Marker.ADD)
    box.pose = Pose(position=point_message(center), orientation=quaternion_message(quaternion))
    box.scale = vector_message(size)
    box.color = ColorRGBA(r=red, g=green, b=blue, a=BOX_OPACITY)
    yield box

    heading = Marker(ns="headings", id=number, type=Marker.LINE_STRIP, action=Marker.ADD)
    length, width, height = size / 2
    roof = geometry.apply(frame_from_box, [(0, width, height), (length, 0, height), (0, -width, height)])
    heading.points = [point_message(point) for point in roof]
    heading.scale.x = _LINE_WIDTH
    heading.color = _HEADING_COLOUR
    yield heading

    velocity = frame_from_boxes[:3, :2] @ detections.velocities[index]
    if np.linalg.norm(velocity) >= SLOWEST_ARROW:
        arrow = Marker(ns="velocities", id=number, type=Marker.ARROW, action=Marker.ADD)
        arrow.points = [point_message(center), point_message(center + velocity)]  # where it will be in one second
        arrow.scale = _ARROW_SCALE
        arrow.color = ColorRGBA(r=red, g=green, b=blue, a=1.0)
        yield arrow

    text = Marker(ns="labels", id=number, type=Marker.TEXT_VIEW_FACING, action=Marker.ADD)
    text.pose.position = point_message(geometry.apply(frame_from_box, (0, 0, height + _TEXT_GAP)))
    text.text = f"{prefix}{CLASS_NAMES[label]} {detections.scores[index]:.2f}"
    text.scale.z = _TEXT_HEIGHT
    text.color = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
    yield text


def _trail(detections: Detections3D, index: int, number: int, points: NDArray[np.float64]) -> Marker:
    red, green, blue = (channel / 255 for channel in CLASSES[detections.labels[index]].colour)
    trail = Marker(ns="trails", id=number, type=Marker.LINE_STRIP, action=Marker.ADD)
    trail.points = [point_message(point) for point in points]
    trail.scale.x = _LINE_WIDTH
    trail.color = ColorRGBA(r=red, g=green, b=blue, a=1.0)
    return trail
