"""Everything that the node publishes per set, built only where somebody listens."""

from __future__ import annotations

import numpy as np
from bevformer_ros.msg import DetectionKinematicsArray, DetectorStatus
from numpy.typing import NDArray
from rclpy.lifecycle import Node
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection3DArray
from visualization_msgs.msg import MarkerArray

from bevformer_ros.drawing import draw_surround
from bevformer_ros.ros import topics
from bevformer_ros.ros.conversions import (
    detections_to_message,
    header_of,
    image_to_message,
    kinematics_to_message,
)
from bevformer_ros.ros.markers import MarkerWriter
from bevformer_ros.types import Detections3D, SurroundFrame

QUEUE_DEPTH = 10
# Markers outlive their period by this factor, so that they do not flicker, and vanish when the node falls silent.
_LIFETIME_PERIODS = 2.5
_LIFETIME_LIMITS_NS = (200_000_000, 5_000_000_000)
_LIFETIME_UNKNOWN_NS = 1_000_000_000


class Outputs:
    """The lifecycle publishers of a node; publish_* may be called from the worker thread."""

    def __init__(self, node: Node, output_frame: str) -> None:
        self._node = node
        self._frame = output_frame
        self._detections = node.create_lifecycle_publisher(Detection3DArray, topics.DETECTIONS, QUEUE_DEPTH)
        self._kinematics = node.create_lifecycle_publisher(DetectionKinematicsArray, topics.KINEMATICS, QUEUE_DEPTH)
        self._markers = node.create_lifecycle_publisher(MarkerArray, topics.MARKERS, QUEUE_DEPTH)
        self._overlay = node.create_lifecycle_publisher(Image, topics.OVERLAY, 1)
        self._status = node.create_lifecycle_publisher(DetectorStatus, topics.STATUS, QUEUE_DEPTH)
        self._proposals = node.create_lifecycle_publisher(Detection3DArray, topics.PROPOSALS, QUEUE_DEPTH)
        self._proposal_markers = node.create_lifecycle_publisher(MarkerArray, topics.PROPOSAL_MARKERS, QUEUE_DEPTH)
        self._marker_writer, self._proposal_marker_writer = MarkerWriter(), MarkerWriter()

    def destroy(self) -> None:
        for publisher in (
            *(self._detections, self._kinematics, self._markers, self._overlay, self._status),
            *(self._proposals, self._proposal_markers),
        ):
            self._node.destroy_lifecycle_publisher(publisher)

    def publish_detections(
        self, detections_bev: Detections3D, output_from_bev: NDArray[np.float64], period_ns: float | None
    ) -> None:
        """period_ns: time between sets, for the life of the markers; None while unknown."""
        detections = detections_bev.transformed(output_from_bev)
        self._detections.publish(detections_to_message(detections, self._frame))
        self._kinematics.publish(kinematics_to_message(detections, self._frame))
        lifetime = marker_lifetime_ns(period_ns)
        if self._markers.get_subscription_count():
            self._markers.publish(self._marker_writer.write(detections, self._frame, lifetime))
        if detections.proposals is None:
            return
        self._proposals.publish(detections_to_message(detections.proposals, self._frame))
        if self._proposal_markers.get_subscription_count():
            markers = self._proposal_marker_writer.write(detections.proposals, self._frame, lifetime)
            self._proposal_markers.publish(markers)

    def publish_overlay(self, frame: SurroundFrame, detections_bev: Detections3D, warning: str) -> None:
        """The camera views with the boxes drawn into them; drawn only where somebody listens."""
        if self._overlay.get_subscription_count():
            picture = draw_surround(frame, detections_bev, f"{len(detections_bev)} boxes", warning=warning)
            self._overlay.publish(image_to_message(picture, header_of(frame.stamp_ns, self._frame)))

    def publish_status(self, status: DetectorStatus) -> None:
        self._status.publish(status)

    def delete_markers(self, stamp_ns: int) -> None:
        header = header_of(stamp_ns, self._frame)
        self._markers.publish(self._marker_writer.delete_all(header))
        self._proposal_markers.publish(self._proposal_marker_writer.delete_all(header))


def marker_lifetime_ns(period_ns: float | None) -> int:
    if period_ns is None:
        return _LIFETIME_UNKNOWN_NS
    shortest, longest = _LIFETIME_LIMITS_NS
    return round(min(max(_LIFETIME_PERIODS * period_ns, shortest), longest))
