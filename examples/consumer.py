"""What is ahead: python3 examples/consumer.py, beside a detector. With its parameter tracking, of single objects:
... --ros-args -r /detector/detections:=/detector/tracks -r /detector/kinematics:=/detector/track_kinematics
"""

from math import hypot

import rclpy
from bevformer_ros.msg import DetectionKinematicsArray
from vision_msgs.msg import Detection3DArray

from bevformer_ros.ros.stamped_pairs import StampedPairs


def tell(boxes: Detection3DArray, kinematics: DetectionKinematicsArray) -> None:
    for box, extra in zip(boxes.detections, kinematics.detections, strict=True):
        place = box.bbox.center.position
        if place.x > 0 and abs(place.y) < 2:  # base_link: x forward, y left
            speed = hypot(extra.velocity.twist.linear.x, extra.velocity.twist.linear.y)
            name = f"{extra.class_name} {box.id}".rstrip()  # only tracks have ids
            print(f"{name}: {place.x:.1f} m ahead, {speed:.1f} m/s", flush=True)


rclpy.init()
node = rclpy.create_node("consumer")
pairs = StampedPairs(tell)
node.create_subscription(Detection3DArray, "/detector/detections", pairs.add_first, 10)
node.create_subscription(DetectionKinematicsArray, "/detector/kinematics", pairs.add_second, 10)
rclpy.spin(node)
