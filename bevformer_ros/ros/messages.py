"""Message classes, for what runs on a car and on a machine without ROS alike.

In a ROS environment the classes are its own, which can be published. Without one they are those of the rosbags
library, filled with defaults: the same fields and constants.
"""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np

try:
    import rclpy  # noqa: F401
except ImportError:
    IN_ROS = False
else:
    IN_ROS = True

if IN_ROS:
    from bevformer_ros.msg import (
        DetectionKinematics,
        DetectionKinematicsArray,
        DetectorStatus,
        ReasonCount,
        StageLatency,
    )
    from builtin_interfaces.msg import Duration, Time
    from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
    from geometry_msgs.msg import Point, Pose, Quaternion, Transform, TransformStamped, Vector3
    from sensor_msgs.msg import CameraInfo, CompressedImage, Image
    from std_msgs.msg import ColorRGBA, Header
    from tf2_msgs.msg import TFMessage
    from vision_msgs.msg import Detection3D, Detection3DArray, LabelInfo, ObjectHypothesisWithPose, VisionClass
    from visualization_msgs.msg import Marker, MarkerArray
else:
    from bevformer_ros.ros.offline_messages import offline_class

    DetectionKinematics = offline_class("bevformer_ros/msg/DetectionKinematics")
    DetectionKinematicsArray = offline_class("bevformer_ros/msg/DetectionKinematicsArray")
    DetectorStatus = offline_class("bevformer_ros/msg/DetectorStatus")
    ReasonCount = offline_class("bevformer_ros/msg/ReasonCount")
    StageLatency = offline_class("bevformer_ros/msg/StageLatency")
    Duration = offline_class("builtin_interfaces/msg/Duration")
    Time = offline_class("builtin_interfaces/msg/Time")
    DiagnosticStatus = offline_class("diagnostic_msgs/msg/DiagnosticStatus")
    KeyValue = offline_class("diagnostic_msgs/msg/KeyValue")
    Point = offline_class("geometry_msgs/msg/Point")
    Pose = offline_class("geometry_msgs/msg/Pose")
    Quaternion = offline_class("geometry_msgs/msg/Quaternion")
    Transform = offline_class("geometry_msgs/msg/Transform")
    TransformStamped = offline_class("geometry_msgs/msg/TransformStamped")
    Vector3 = offline_class("geometry_msgs/msg/Vector3")
    CameraInfo = offline_class("sensor_msgs/msg/CameraInfo")
    CompressedImage = offline_class("sensor_msgs/msg/CompressedImage")
    Image = offline_class("sensor_msgs/msg/Image")
    ColorRGBA = offline_class("std_msgs/msg/ColorRGBA")
    Header = offline_class("std_msgs/msg/Header")
    TFMessage = offline_class("tf2_msgs/msg/TFMessage")
    Detection3D = offline_class("vision_msgs/msg/Detection3D")
    Detection3DArray = offline_class("vision_msgs/msg/Detection3DArray")
    LabelInfo = offline_class("vision_msgs/msg/LabelInfo")
    ObjectHypothesisWithPose = offline_class("vision_msgs/msg/ObjectHypothesisWithPose")
    VisionClass = offline_class("vision_msgs/msg/VisionClass")
    Marker = offline_class("visualization_msgs/msg/Marker")
    MarkerArray = offline_class("visualization_msgs/msg/MarkerArray")

__all__ = [
    "IN_ROS",
    "CameraInfo",
    "ColorRGBA",
    "CompressedImage",
    "Detection3D",
    "Detection3DArray",
    "DetectionKinematics",
    "DetectionKinematicsArray",
    "DetectorStatus",
    "DiagnosticStatus",
    "Duration",
    "Header",
    "Image",
    "KeyValue",
    "LabelInfo",
    "Marker",
    "MarkerArray",
    "ObjectHypothesisWithPose",
    "Point",
    "Pose",
    "Quaternion",
    "ReasonCount",
    "StageLatency",
    "TFMessage",
    "Time",
    "Transform",
    "TransformStamped",
    "Vector3",
    "VisionClass",
    "byte_array",
]


def byte_array(data: bytes | memoryview) -> Any:
    """What a uint8[] field takes fastest."""
    if not IN_ROS:
        return np.frombuffer(data, np.uint8)
    values = array("B")
    values.frombytes(data)
    return values
