"""The settings as parameters of the node, and those of the rig's cameras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import Field
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidTopicNameException
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.validate_topic_name import validate_topic_name

from bevformer_ros.config import CameraConfig, RigConfig
from bevformer_ros.ros.node import settings
from bevformer_ros.ros.node.settings import SETTINGS, Settings


def declare(node: Node) -> None:
    """Raises a rclpy.exceptions.ParameterException for an override of a wrong type or outside its range."""
    for name, entry in SETTINGS.items():
        node.declare_parameter(name, entry.default, _descriptor(entry))


def read(node: Node) -> Settings:
    return Settings(**{name: node.get_parameter(name).value for name in SETTINGS})


def check(parameters: Sequence[Parameter], configured: bool) -> SetParametersResult:
    """What rclpy's types and ranges cannot say. configured: whether the node has read its parameters already."""
    for parameter in parameters:
        fault = _fault(parameter.name, parameter.value) or (configured and _too_late(parameter.name))
        if fault:
            return SetParametersResult(successful=False, reason=fault)
    return SetParametersResult(successful=True)


def _fault(name: str, value: Any) -> str:
    if name in SETTINGS:
        return settings.fault(name, value)
    if name.startswith(_CAMERA_PREFIX) and name.endswith("_topic"):
        try:
            validate_topic_name(value)
        except InvalidTopicNameException as error:
            return f"{name} is {value!r}, expected the name of a topic: {error}"
    return ""


def _too_late(name: str) -> str:
    live = name in SETTINGS and SETTINGS[name].metadata["live"]
    ours = name in SETTINGS or name.startswith(_CAMERA_PREFIX)
    return f"{name} takes effect when the node is configured; clean it up first" if ours and not live else ""


def _descriptor(entry: Field[Any]) -> ParameterDescriptor:
    choices, within = entry.metadata["choices"], entry.metadata["within"]
    descriptor = ParameterDescriptor(
        description=entry.metadata["description"],
        additional_constraints=f"one of {', '.join(choices)}" if choices else "",
    )
    if within is not None and isinstance(entry.default, float):
        descriptor.floating_point_range = [_float_range(within)]
    elif within is not None:
        descriptor.integer_range = [IntegerRange(from_value=int(within[0]), to_value=int(within[1]), step=1)]
    return descriptor


def _float_range(within: tuple[float, float]) -> FloatingPointRange:
    return FloatingPointRange(from_value=within[0], to_value=within[1])


_CAMERA_PREFIX = "cameras."
_EXPOSURE_OFFSETS_MS = (-1000.0, 1000.0)
_CAMERA_PARAMETERS = {
    "image_topic": "topic of the images",
    "camera_info_topic": "topic of the calibration",
    "compressed": "the images are sensor_msgs/CompressedImage",
    "rectified": "the images are rectified, their calibration is P without distortion",
    "exposure_offset_ms": "expected stamp relative to the reference camera's",
}


def declare_cameras(node: Node, rig: RigConfig) -> None:
    """Parameters cameras.<name>.<what>, whose defaults are the rig's."""
    for camera in rig.cameras:
        for what, description in _CAMERA_PARAMETERS.items():
            descriptor = ParameterDescriptor(description=f"{camera.name}: {description}; default from the rig")
            if what == "exposure_offset_ms":
                descriptor.floating_point_range = [_float_range(_EXPOSURE_OFFSETS_MS)]
            node.declare_parameter(f"{_CAMERA_PREFIX}{camera.name}.{what}", getattr(camera, what), descriptor)


def read_cameras(node: Node, rig: RigConfig) -> tuple[CameraConfig, ...]:
    return tuple(
        CameraConfig(
            name=camera.name,
            **{what: node.get_parameter(f"{_CAMERA_PREFIX}{camera.name}.{what}").value for what in _CAMERA_PARAMETERS},
        )
        for camera in rig.cameras
    )


def undeclare_cameras(node: Node) -> None:
    for name in list(node.get_parameters_by_prefix(_CAMERA_PREFIX.rstrip("."))):
        node.undeclare_parameter(_CAMERA_PREFIX + name)


def parameter_table() -> str:
    """The parameters as a Markdown table; docs/node.md holds it, and a test compares."""
    lines = ["| parameter | default | range | what |", "|---|---|---|---|"]
    for name, entry in SETTINGS.items():
        cells = (f"`{name}`", settings.default_text(entry), settings.range_text(entry), entry.metadata["description"])
        lines.append(f"| {' | '.join(cells)} |")
    for what, description in _CAMERA_PARAMETERS.items():
        within = "{:g} to {:g}".format(*_EXPOSURE_OFFSETS_MS) if what == "exposure_offset_ms" else ""
        lines.append(f"| `{_CAMERA_PREFIX}<name>.{what}` | from the rig | {within} | {description} |")
    return "\n".join(lines)
