"""Names of what the detector node publishes and serves. With the node named detector: /detector/detections etc."""

NODE_NAME = "detector"

DETECTIONS = "~/detections"  # vision_msgs/Detection3DArray
KINEMATICS = "~/kinematics"  # bevformer_ros/DetectionKinematicsArray
MARKERS = "~/markers"  # visualization_msgs/MarkerArray
OVERLAY = "~/overlay"  # sensor_msgs/Image
STATUS = "~/status"  # bevformer_ros/DetectorStatus
PROPOSALS = "~/proposals"  # vision_msgs/Detection3DArray, of models with a perspective head
PROPOSAL_MARKERS = "~/proposal_markers"  # visualization_msgs/MarkerArray
DIAGNOSTICS = "/diagnostics"  # diagnostic_msgs/DiagnosticArray
RESET = "~/reset"  # std_srvs/Trigger


def resolved(topic: str, node: str = NODE_NAME) -> str:
    """The name on the graph, where the node is called `node`."""
    return f"/{node}{topic[1:]}" if topic.startswith("~") else topic
