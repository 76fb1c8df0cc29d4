"""Everything that the node publishes per set, built only where somebody listens."""

from __future__ import annotations

from typing import Any

import numpy as np
from bevformer_ros.msg import DetectionKinematicsArray, DetectorStatus
from numpy.typing import NDArray
from rclpy.lifecycle import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection3DArray, LabelInfo
from visualization_msgs.msg import MarkerArray

from bevformer_ros.drawing import draw_surround
from bevformer_ros.error_model import ErrorModel
from bevformer_ros.ros import topics
from bevformer_ros.ros.conversions import header_of, image_to_message, label_info
from bevformer_ros.ros.node.qos import publisher_overrides
from bevformer_ros.ros.result_messages import ResultMessages
from bevformer_ros.ros.track_messages import TrackMessages
from bevformer_ros.tracking.tracks import Tracks3D
from bevformer_ros.types import Detections3D, SurroundFrame

QUEUE_DEPTH = 10
_TYPES = {
    topics.DETECTIONS: Detection3DArray,
    topics.KINEMATICS: DetectionKinematicsArray,
    topics.MARKERS: MarkerArray,
    topics.STATUS: DetectorStatus,
    topics.PROPOSALS: Detection3DArray,
    topics.PROPOSAL_MARKERS: MarkerArray,
    topics.TRACKS: Detection3DArray,
    topics.TRACK_KINEMATICS: DetectionKinematicsArray,
    topics.TRACK_MARKERS: MarkerArray,
}


class Outputs:
    """The lifecycle publishers of a node; publish_* may be called from the worker thread."""

    def __init__(self, node: Node, output_frame: str) -> None:
        self._node = node
        self._messages = ResultMessages(output_frame)
        self._track_messages = TrackMessages(output_frame)
        self._publishers = {
            topic: self._make_publisher(kind, topic, QoSProfile(depth=QUEUE_DEPTH)) for topic, kind in _TYPES.items()
        }
        self._overlay = self._make_publisher(Image, topics.OVERLAY, QoSProfile(depth=1))
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._labels = self._make_publisher(LabelInfo, topics.LABELS, latched)

    def _make_publisher(self, kind: type, topic: str, qos: QoSProfile) -> Any:
        return self._node.create_lifecycle_publisher(kind, topic, qos, qos_overriding_options=publisher_overrides())

    def destroy(self) -> None:
        for publisher in (*self._publishers.values(), self._overlay, self._labels):
            self._node.destroy_lifecycle_publisher(publisher)

    def publish_detections(
        self,
        detections_bev: Detections3D,
        output_from_bev: NDArray[np.float64],
        period_ns: float | None,
        error_model: ErrorModel | None,
    ) -> None:
        """period_ns: time between sets, for the life of the markers; None while unknown. error_model: the weights'."""
        for topic, message in self._messages.of(
            detections_bev, output_from_bev, period_ns, self._has_listener, error_model
        ):
            self._publishers[topic].publish(message)

    def publish_labels(self, score_threshold: float) -> None:
        """What the numbers of the classes mean, for whoever listens now or later."""
        header = header_of(self._node.get_clock().now().nanoseconds, self._messages.frame)
        self._labels.publish(label_info(header, score_threshold))

    def publish_tracks(
        self,
        tracks_bev: Tracks3D,
        world_from_bev: NDArray[np.float64],
        output_from_bev: NDArray[np.float64],
        period_ns: float | None,
    ) -> None:
        """period_ns: as above."""
        for topic, message in self._track_messages.of(
            tracks_bev, world_from_bev, output_from_bev, period_ns, self._has_listener
        ):
            self._publishers[topic].publish(message)

    def has_listeners(self) -> bool:
        """Whether anybody takes what the network finds; who watches the status does not."""
        publishers = [publisher for topic, publisher in self._publishers.items() if topic != topics.STATUS]
        return any(publisher.get_subscription_count() for publisher in (*publishers, self._overlay))

    def _has_listener(self, topic: str) -> bool:
        return self._publishers[topic].get_subscription_count() > 0

    def publish_overlay(self, frame: SurroundFrame, detections_bev: Detections3D, warning: str) -> None:
        """The camera views with the boxes drawn into them; drawn only where somebody listens."""
        if self._overlay.get_subscription_count():
            picture = draw_surround(frame, detections_bev, f"{len(detections_bev)} boxes", warning=warning)
            self._overlay.publish(image_to_message(picture, header_of(frame.stamp_ns, self._messages.frame)))

    def publish_status(self, status: DetectorStatus) -> None:
        self._publishers[topics.STATUS].publish(status)

    def delete_markers(self, stamp_ns: int) -> None:
        header = header_of(stamp_ns, self._messages.frame)
        self._publishers[topics.MARKERS].publish(self._messages.markers.delete_all(header))
        self._publishers[topics.PROPOSAL_MARKERS].publish(self._messages.proposal_markers.delete_all(header))
        self._publishers[topics.TRACK_MARKERS].publish(self._track_messages.markers.delete_all(header))
