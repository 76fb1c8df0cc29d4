"""Boxes for RViz: a cube, a heading, a velocity arrow and a text per detection; of a track a trail too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy

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
_LINE_WIDTH = 0.08
_TEXT_GAP = 0.6
_MARKER_NUMBERS = 2**31


def _class_colours(opacity: float) -> list[ColorRGBA]:
    channels = ([channel / 255 for channel in entry.colour] for entry in CLASSES)
    return [ColorRGBA(r=red, g=green, b=blue, a=opacity) for red, green, blue in channels]


_COLOURS, _STRONG_COLOURS = _class_colours(BOX_OPACITY), _class_colours(1.0)
_BOX = Marker(ns="boxes", type=Marker.CUBE, action=Marker.ADD)
_HEADING = Marker(
    ns="headings",
    type=Marker.LINE_STRIP,
    action=Marker.ADD,
    scale=Vector3(x=_LINE_WIDTH),
    color=ColorRGBA(r=1.0, g=1.0, b=1.0, a=0.9),
)
_ARROW = Marker(
    ns="velocities",
    type=Marker.ARROW,
    action=Marker.ADD,
    scale=Vector3(x=0.15, y=0.4, z=0.4),  # shaft, head diameter, head length
)
_TEXT = Marker(
    ns="labels",
    type=Marker.TEXT_VIEW_FACING,
    action=Marker.ADD,
    scale=Vector3(z=0.8),
    color=ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0),
)
_TRAIL = Marker(ns="trails", type=Marker.LINE_STRIP, action=Marker.ADD, scale=Vector3(x=_LINE_WIDTH))


class MarkerWriter:
    """Turns one detection after the other into markers, deleting those that the last one had and this one lacks."""

    def __init__(self) -> None:
        self._shown: set[tuple[str, int]] = set()

    def write(
        self, detections: Detections3D, frame_id: str, frame_from_boxes: NDArray[np.float64], lifetime_ns: int
    ) -> MarkerArray:
        """Markers in frame_id, (4, 4) from the boxes' own frame; each vanishes after the lifetime (0: never)."""
        numbers, prefixes = range(len(detections)), [""] * len(detections)
        markers = list(_markers_of(detections, frame_from_boxes, numbers, prefixes))
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
        identities = tracks.ids.tolist()
        numbers = [identity % _MARKER_NUMBERS for identity in identities]
        prefixes = [f"{identity} " for identity in identities]
        markers = [
            *_markers_of(tracks.boxes, frame_from_tracks, numbers, prefixes),
            *(_trail(*each) for each in zip(numbers, tracks.boxes.labels, trails, strict=True)),
        ]
        return self._changes(markers, header_of(tracks.stamp_ns, frame_id), lifetime_ns)

    def _changes(self, markers: list[Marker], header: Header, lifetime_ns: int) -> MarkerArray:
        seconds, nanoseconds = divmod(lifetime_ns, SECOND_NS)
        lifetime = Duration(sec=seconds, nanosec=nanoseconds)
        for marker in markers:
            marker.header, marker.lifetime = header, lifetime
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
    boxes: Detections3D, frame_from_boxes: NDArray[np.float64], numbers: Sequence[int], prefixes: Sequence[str]
) -> Iterator[Marker]:
    """numbers: of each box's markers. prefixes: of their texts."""
    if not len(boxes):
        return
    rotation = frame_from_boxes[:3, :3]
    centers = geometry.apply(frame_from_boxes, boxes.centers)
    quaternions = geometry.box_quaternions(rotation, boxes.yaws)
    roofs, places = _roofs_and_places(boxes, frame_from_boxes)
    velocities = boxes.velocities @ rotation[:, :2].T
    for row, (number, prefix) in enumerate(zip(numbers, prefixes, strict=True)):
        label, center = boxes.labels[row], point_message(centers[row])
        box = _copy(_BOX, number)
        box.pose = Pose(position=center, orientation=quaternion_message(quaternions[row]))
        box.scale = vector_message(boxes.sizes[row])
        box.color = _COLOURS[label]
        yield box

        heading = _copy(_HEADING, number)
        heading.points = [point_message(point) for point in roofs[row]]
        yield heading

        if np.hypot(*boxes.velocities[row]) >= SLOWEST_ARROW:
            arrow = _copy(_ARROW, number)
            arrow.points = [center, point_message(centers[row] + velocities[row])]  # where it will be in one second
            arrow.color = _STRONG_COLOURS[label]
            yield arrow

        text = _copy(_TEXT, number)
        text.pose = Pose(position=point_message(places[row]))
        text.text = f"{prefix}{CLASS_NAMES[label]} {boxes.scores[row]:.2f}"
        yield text


def _roofs_and_places(
    boxes: Detections3D, frame_from_boxes: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of headings the points (n, 3, 3), an arrowhead on the roof, and of texts the places (n, 3)."""
    (length, width, height), zero = boxes.sizes.T / 2, np.zeros(len(boxes))
    local = np.array(
        [(zero, width, height), (length, zero, height), (zero, -width, height), (zero, zero, height + _TEXT_GAP)]
    )
    points = geometry.box_points(local.transpose(2, 0, 1), boxes.centers, boxes.yaws)
    points = geometry.apply(frame_from_boxes, points)
    return points[:, :3], points[:, 3]


def _copy(template: Marker, number: int) -> Marker:
    """A fraction of the time that a new one takes; shares with the template what is not replaced."""
    marker = copy(template)
    marker.id = number
    return marker


def _trail(number: int, label: int, points: NDArray[np.float64]) -> Marker:
    trail = _copy(_TRAIL, number)
    trail.points = [point_message(point) for point in points]
    trail.color = _STRONG_COLOURS[label]
    return trail
