"""Start the detector: ros2 launch bevformer_ros detector.launch.py rig:=nuscenes_compressed model:=tiny weights:=..."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from bevformer_ros.resources import DDS_PROFILE_VARIABLE, dds_profile, process_settings, share_directory

SHARE = share_directory()
YES_OR_NO = ["true", "false", "True", "False"]  # the latter as Python launch files of a parent have them
AS_IN_PARAMETERS = "; empty: as in the parameter file, or else the node's own default (docs/node.md)"

# Launch arguments that are node parameters of the same name.
TEXT_PARAMETERS = ["rig", "model", "weights", "device", "precision"]
SWITCH_PARAMETERS = ["autostart", "tracking", "use_sim_time"]


def generate_launch_description():
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "rig",
                default_value="",
                description="cameras and frames: a name in config/rigs or the path of a rig YAML" + AS_IN_PARAMETERS,
            ),
            DeclareLaunchArgument(
                "model",
                default_value="",
                description="network: a name in weights or config/models, or the path of a .safetensors or YAML"
                + AS_IN_PARAMETERS,
            ),
            DeclareLaunchArgument(
                "weights",
                default_value="",
                description="path of the weights (.pth or .safetensors)" + AS_IN_PARAMETERS,
            ),
            DeclareLaunchArgument(
                "device", default_value="", description="auto, cpu, cuda or cuda:N" + AS_IN_PARAMETERS
            ),
            DeclareLaunchArgument(
                "precision", default_value="", description="auto, float32, bfloat16 or float16" + AS_IN_PARAMETERS
            ),
            DeclareLaunchArgument(
                "autostart",
                default_value="",
                choices=["", *YES_OR_NO],
                description="configure and activate by itself" + AS_IN_PARAMETERS,
            ),
            DeclareLaunchArgument(
                "tracking",
                default_value="",
                choices=["", *YES_OR_NO],
                description="follow boxes over time and publish tracks" + AS_IN_PARAMETERS,
            ),
            DeclareLaunchArgument(
                "use_sim_time",
                default_value="",
                choices=["", *YES_OR_NO],
                description="take time from /clock, as bags and simulators publish it" + AS_IN_PARAMETERS,
            ),
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
            OpaqueFunction(function=start_nodes),
        ]
    )


def start_nodes(context):
    def value(name):
        return LaunchConfiguration(name).perform(context)

    def is_on(name):
        return value(name).lower() == "true"

    given = {name: ParameterValue(value(name), value_type=str) for name in TEXT_PARAMETERS if value(name)}
    given.update({name: is_on(name) for name in SWITCH_PARAMETERS if value(name)})
    environment = process_settings() if is_on("tune_process") else {}
    if value("dds_profile"):
        environment[DDS_PROFILE_VARIABLE] = value("dds_profile")

    nodes = [
        Node(
            package="bevformer_ros",
            executable="detector",
            name="detector",
            namespace=value("namespace"),
            parameters=[value("params_file"), given] if given else [value("params_file")],
            additional_env=environment,
            output="screen",
        )
    ]
    if is_on("rviz"):
        nodes.append(
            Node(
                package="rviz2",
                executable="rviz2",
                name="rviz",
                namespace=value("namespace"),
                arguments=["-d", str(SHARE / "rviz" / "detector.rviz")],
                parameters=[{"use_sim_time": is_on("use_sim_time")}],
                additional_env=environment,
            )
        )
    return nodes
