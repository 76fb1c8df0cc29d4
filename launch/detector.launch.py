"""Start the detector: ros2 launch bevformer_ros detector.launch.py rig:=nuscenes_compressed model:=tiny weights:=...

Beside the arguments below, cameras.<name>.image_topic:=... and the other parameters of a camera (docs/node.md).
"""

import os

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from bevformer_ros.resources import (
    DDS_PROFILE_VARIABLE,
    dds_profile,
    middleware_settings,
    process_settings,
    share_directory,
)

SHARE = share_directory()
YES_OR_NO = ["true", "false", "True", "False"]  # the latter as Python launch files of a parent have them
AS_IN_PARAMETERS = "; empty: as in the parameter file, or else the node's own default (docs/node.md)"

# Launch arguments that are node parameters of the same name: text, switches, and what is read as YAML (None).
PARAMETERS = {
    "rig": (str, "cameras and frames: a name in config/rigs or the path of a rig YAML"),
    "model": (str, "network: a name in weights or config/models, or the path of a .safetensors or YAML"),
    "weights": (str, "path of the weights (.pth or .safetensors)"),
    "backend": (str, "torch, or onnxruntime, for which model is a folder that `bevformer-ros export` wrote"),
    "device": (str, "auto, cpu, cuda or cuda:N"),
    "precision": (str, "auto, float32, bfloat16 or float16"),
    "output_frame": (str, "tf frame of the published boxes"),
    "score_threshold": (
        None,
        "boxes with a lower score are not published; a number, or a list with one for each class",
    ),
    "minimum_cameras": (None, "a set with fewer images is dropped; 0 for all cameras of the rig"),
    "sync_tolerance_ms": (None, "farthest that an image may lie from its expected stamp"),
    "image_reliability": (str, "best_effort or reliable, of the subscriptions to the cameras"),
    "autostart": (bool, "configure and activate by itself"),
    "tracking": (bool, "follow boxes over time and publish tracks"),
    "use_sim_time": (bool, "take time from /clock, as bags and simulators publish it"),
}


def generate_launch_description():
    parameters = [
        DeclareLaunchArgument(
            name,
            default_value="",
            description=description + AS_IN_PARAMETERS,
            choices=["", *YES_OR_NO] if kind is bool else None,
        )
        for name, (kind, description) in PARAMETERS.items()
    ]
    return LaunchDescription(
        [
            *parameters,
            DeclareLaunchArgument(
                "params_file",
                default_value=str(SHARE / "config" / "detector.yaml"),
                description="YAML with node parameters",
            ),
            DeclareLaunchArgument("namespace", default_value="", description="namespace of the node and its outputs"),
            DeclareLaunchArgument(
                "rviz", default_value="false", choices=YES_OR_NO, description="start RViz with the detector's outputs"
            ),
            DeclareLaunchArgument(
                "dds_profile",
                default_value=EnvironmentVariable(DDS_PROFILE_VARIABLE, default_value=str(dds_profile())),
                description="Fast DDS profile with room for large images; camera drivers need it too; empty for none",
            ),
            DeclareLaunchArgument(
                "tune_process",
                default_value="true",
                choices=YES_OR_NO,
                description="memory and waiting threads as the node wants them (config/process.env)",
            ),
            DeclareLaunchArgument(
                "respawn",
                default_value="false",
                choices=YES_OR_NO,
                description="start the node anew when its process ends by itself, as after the loss of a GPU",
            ),
            DeclareLaunchArgument("respawn_delay", default_value="2.0", description="seconds before that"),
            OpaqueFunction(function=start_nodes),
        ]
    )


def start_nodes(context):
    def value(name):
        return LaunchConfiguration(name).perform(context)

    def is_on(name):
        return value(name).lower() == "true"

    given = {}
    for name, (kind, _) in PARAMETERS.items():
        if value(name):
            given[name] = is_on(name) if kind is bool else ParameterValue(value(name), value_type=kind)
    of_cameras = {name: text for name, text in context.launch_configurations.items() if name.startswith("cameras.")}
    given.update({name: ParameterValue(text) for name, text in of_cameras.items()})
    environment = process_settings() if is_on("tune_process") else {}
    environment.update(middleware_settings())
    if value("dds_profile"):
        environment[DDS_PROFILE_VARIABLE] = value("dds_profile")

    detector = Node(
        package="bevformer_ros",
        executable="detector",
        name="detector",
        namespace=value("namespace"),
        parameters=[value("params_file"), given] if given else [value("params_file")],
        additional_env=environment,
        output="screen",
        respawn=is_on("respawn"),
        respawn_delay=float(value("respawn_delay")),
    )
    return [detector, rviz(value("namespace"), is_on("use_sim_time"), environment)] if is_on("rviz") else [detector]


def rviz(namespace, use_sim_time, environment):
    try:
        get_package_prefix("rviz2")
    except PackageNotFoundError:
        package = f"ros-{os.environ.get('ROS_DISTRO', '$ROS_DISTRO')}-rviz2"
        return LogInfo(msg=f"rviz:=true, but there is no rviz2 here; install it with: sudo apt install {package}")
    return Node(
        package="rviz2",
        executable="rviz2",
        name="rviz",
        namespace=namespace,
        arguments=["-d", str(SHARE / "rviz" / "detector.rviz")],
        parameters=[{"use_sim_time": use_sim_time}],
        additional_env=environment,
    )
