"""Translate for Autoware: ros2 launch bevformer_ros autoware_bridge.launch.py output/detected_objects:=/..."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from bevformer_ros.resources import share_directory

PERCEPTION = "/perception/object_recognition"
# Topics of the node, without "~/", and where they go.
TOPICS = {
    "input/detections": ("/detector/detections", "boxes of the detector"),
    "input/kinematics": ("/detector/kinematics", "velocities of these boxes"),
    "input/tracks": ("/detector/tracks", "tracks of the detector, which it has with its parameter tracking"),
    "input/track_kinematics": ("/detector/track_kinematics", "velocities of these tracks"),
    "output/detected_objects": (
        f"{PERCEPTION}/detection/bevformer/objects",
        "autoware_perception_msgs/DetectedObjects",
    ),
    "output/tracked_objects": (f"{PERCEPTION}/tracking/bevformer/objects", "autoware_perception_msgs/TrackedObjects"),
}


def generate_launch_description():
    arguments = [
        DeclareLaunchArgument(name, default_value=topic, description=what) for name, (topic, what) in TOPICS.items()
    ]
    parameters = DeclareLaunchArgument(
        "params_file",
        default_value=str(share_directory() / "config" / "autoware" / "autoware_bridge.param.yaml"),
        description="YAML with node parameters",
    )
    bridge = Node(
        package="bevformer_ros",
        executable="autoware_bridge",
        name="autoware_bridge",
        parameters=[LaunchConfiguration("params_file")],
        remappings=[(f"~/{name}", LaunchConfiguration(name)) for name in TOPICS],
        output="screen",
    )
    return LaunchDescription([*arguments, parameters, bridge])
