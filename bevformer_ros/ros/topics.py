"""Names of what the detector node publishes and serves (with the node named detector: /detector/detections etc.), and
of what bags hold beside that."""

from __future__ import annotations

from typing import NamedTuple

NODE_NAME = "detector"

DETECTIONS = "~/detections"  # vision_msgs/Detection3DArray
KINEMATICS = "~/kinematics"  # bevformer_ros/DetectionKinematicsArray
LABELS = "~/label_info"  # vision_msgs/LabelInfo, latched
MARKERS = "~/markers"  # visualization_msgs/MarkerArray
OVERLAY = "~/overlay"  # sensor_msgs/Image
STATUS = "~/status"  # bevformer_ros/DetectorStatus
PROPOSALS = "~/proposals"  # vision_msgs/Detection3DArray, of models with a perspective head
PROPOSAL_MARKERS = "~/proposal_markers"  # visualization_msgs/MarkerArray
TRACKS = "~/tracks"  # vision_msgs/Detection3DArray, with the parameter tracking, as the two below
TRACK_KINEMATICS = "~/track_kinematics"  # bevformer_ros/DetectionKinematicsArray
TRACK_MARKERS = "~/track_markers"  # visualization_msgs/MarkerArray
ALL_MARKERS = (MARKERS, PROPOSAL_MARKERS, TRACK_MARKERS)
DIAGNOSTICS = "/diagnostics"  # diagnostic_msgs/DiagnosticArray
RESET = "~/reset"  # std_srvs/Trigger


def resolved(topic: str, node: str = NODE_NAME) -> str:
    """The name on the graph, where the node is called `node`."""
    return f"/{node}{topic[1:]}" if topic.startswith("~") else topic


class BoxTopics(NamedTuple):
    """A Detection3DArray topic, and the DetectionKinematicsArray topic that belongs to it."""

    boxes: str
    kinematics: str


OUTPUT = BoxTopics(resolved(DETECTIONS), resolved(KINEMATICS))
OUTPUT_TRACKS = BoxTopics(resolved(TRACKS), resolved(TRACK_KINEMATICS))
OUTPUT_STATUS = resolved(STATUS)
TRUTH = BoxTopics("/ground_truth/detections", "/ground_truth/kinematics")
LIDAR_FRAME = "LIDAR_TOP"  # tf frame, as nuScenes calls it
