"""The settings as parameters of the node, and those of the rig's cameras."""

from __future__ import annotations

import array
from collections.abc import Mapping, Sequence
from dataclasses import Field, replace
from typing import Any

from rcl_interfaces.msg import IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidTopicNameException
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.validate_topic_name import validate_topic_name

from bevformer_ros.config import LONGEST_REPEAT_MS, CameraConfig, RigConfig
from bevformer_ros.ros.node import qos, settings
from bevformer_ros.ros.node.settings import SETTINGS, Settings


def declare(node: Node) -> None:
    """Raises a rclpy.exceptions.ParameterException for an override of a wrong type or outside its range."""
    for name, entry in SETTINGS.items():
        node.declare_parameter(name, entry.default, _descriptor(entry))


def read(node: Node) -> Settings:
    return Settings(**{name: _as_declared(node.get_parameter(name).value, entry) for name, entry in SETTINGS.items()})


def _as_declared(value: Any, entry: Field[Any]) -> Any:
    if isinstance(value, (list, array.array)):
        return tuple(map(float, value))
    return float(value) if isinstance(entry.default, float) else value


def check(parameters: Sequence[Parameter], configured: bool) -> SetParametersResult:
    """What rclpy's types and ranges cannot say. configured: whether the node has read its parameters already."""
    for parameter in parameters:
        fault = _fault(parameter.name, parameter.value) or (configured and _too_late(parameter.name))
        if fault:
            return SetParametersResult(successful=False, reason=fault)
    return SetParametersResult(successful=True)


def _fault(name: str, value: Any) -> str:
    if name in SETTINGS:
        return settings.fault(name, value.tolist() if isinstance(value, array.array) else value)
    if name.startswith(qos.PREFIX):
        return qos.fault(name, value)
    what = name.rpartition(".")[2]
    if name.startswith(_CAMERA_PREFIX) and what in _CAMERA_RANGES:
        return settings.fault_of_number(name, value, _CAMERA_RANGES[what])
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
    if isinstance(entry.default, float):  # 1 is as good as 1.0, which rclpy's own check of types forbids
        descriptor.dynamic_typing = True
        descriptor.additional_constraints = f"a number, {settings.range_text(entry)}"
    elif within is not None:
        descriptor.integer_range = [IntegerRange(from_value=int(within[0]), to_value=int(within[1]), step=1)]
    return descriptor


_CAMERA_PREFIX = "cameras."
_CAMERA_RANGES = {"exposure_offset_ms": (-1000.0, 1000.0), "repeat_ms": (0.0, LONGEST_REPEAT_MS)}
_CAMERA_PARAMETERS = {
    "image_topic": "topic of the images",
    "camera_info_topic": "topic of the calibration",
    "compressed": "the images are sensor_msgs/CompressedImage",
    "rectified": "the images are rectified, their calibration is P without distortion",
    "exposure_offset_ms": "expected stamp relative to the reference camera's",
    "repeat_ms": "how much older than that an image may be that serves in several sets; 0: each serves once",
}


def declare_cameras(node: Node, rig: RigConfig, before: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters cameras.<name>.<what>, whose defaults are the rig's; returns their values before anybody sets them.

    before: what the last call returned. What somebody has set since then stays.
    """
    now = node.get_parameters_by_prefix(_CAMERA_PREFIX.rstrip("."))
    values = {_CAMERA_PREFIX + name: parameter.value for name, parameter in now.items()}
    changed = {name: value for name, value in values.items() if name in before and value != before[name]}
    for name in values:
        node.undeclare_parameter(name)
    declared = {}
    for camera in rig.cameras:
        for what, description in _CAMERA_PARAMETERS.items():
            descriptor = ParameterDescriptor(description=f"{camera.name}: {description}; default from the rig")
            descriptor.dynamic_typing = what in _CAMERA_RANGES
            name = f"{_CAMERA_PREFIX}{camera.name}.{what}"
            declared[name] = node.declare_parameter(name, getattr(camera, what), descriptor).value
            if name in changed:
                node.set_parameters([Parameter(name, value=changed[name])])
    return declared


def read_cameras(node: Node, rig: RigConfig) -> tuple[CameraConfig, ...]:
    return tuple(_read_camera(node, camera) for camera in rig.cameras)


def _read_camera(node: Node, camera: CameraConfig) -> CameraConfig:
    values = {what: node.get_parameter(f"{_CAMERA_PREFIX}{camera.name}.{what}").value for what in _CAMERA_PARAMETERS}
    return replace(camera, **values | {what: float(values[what]) for what in _CAMERA_RANGES})


def parameter_table() -> str:
    """The parameters as a Markdown table; docs/node.md holds it, and a test compares."""
    lines = ["| parameter | type | default | range | what |", "|---|---|---|---|---|"]
    for name, entry in SETTINGS.items():
        texts = (settings.type_text(entry), settings.default_text(entry), settings.range_text(entry))
        lines.append(f"| {' | '.join((f'`{name}`', *texts, entry.metadata['description']))} |")
    for what, description in _CAMERA_PARAMETERS.items():
        within = "{:g} to {:g}".format(*_CAMERA_RANGES[what]) if what in _CAMERA_RANGES else ""
        kind = "number" if within else "bool" if what in ("compressed", "rectified") else "string"
        lines.append(f"| `{_CAMERA_PREFIX}<name>.{what}` | {kind} | from the rig | {within} | {description} |")
    return "\n".join(lines)
