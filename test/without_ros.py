"""A Python in which ROS cannot be imported, wherever it is installed."""

from __future__ import annotations

from collections.abc import Collection

ROS_LIBRARIES = {
    *("rclpy", "tf2_ros", "tf2_py", "tf2_geometry_msgs", "message_filters", "cv_bridge"),
    *("launch", "launch_ros", "ament_index_python", "rosidl_runtime_py", "builtin_interfaces", "std_srvs"),
}


def blocker(libraries: Collection[str] = frozenset(ROS_LIBRARIES)) -> str:
    """Lines of Python after which these libraries and all message packages are not to be found."""
    return f"""
import sys
class NoRos:
    def find_spec(self, name, path=None, target=None):
        root = name.partition(".")[0]
        if root in {set(libraries)!r} or root.endswith("_msgs") or name == "bevformer_ros.msg":
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)
sys.meta_path.insert(0, NoRos())
"""
