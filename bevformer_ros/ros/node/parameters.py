"""The node's parameters: one table of names, defaults, ranges and descriptions, from which all else follows."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any, get_args

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidTopicNameException
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.validate_topic_name import validate_topic_name

from bevformer_ros.config import CameraConfig, RigConfig
from bevformer_ros.inference.history import HistoryConfig
from bevformer_ros.inference.pipeline import Precision
from bevformer_ros.ros.node.synchronizer import SynchronizerConfig
from bevformer_ros.types import MILLISECOND_NS

DEVICE_PATTERN = "auto, cpu, cuda or cuda:N"


def _parameter(
    default: Any,
    description: str,
    within: tuple[float, float] | None = None,
    choices: tuple[str, ...] = (),
    live: bool = False,
) -> Any:
    """live: may change at any time; others only while the node is unconfigured, since configuring reads them."""
    metadata = {"description": description, "within": within, "choices": choices, "live": live}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """The node's parameters as they stand."""

    rig: str = _parameter("nuscenes", "cameras and frames: a name in config/rigs or the path of a rig YAML")
    model: str = _parameter("demo", "network: a name in weights or config/models, or a path of .safetensors or YAML")
    weights: str = _parameter("", "path of weights (.pth or .safetensors); empty for the model's own, or random ones")
    device: str = _parameter("auto", f"where the network runs: {DEVICE_PATTERN}; auto takes a GPU if there is one")
    precision: Precision = _parameter(  # noqa: RUF009 (a field, as the others)
        "float32", "arithmetic of the network", choices=get_args(Precision)
    )
    autostart: bool = _parameter(True, "configure and activate by itself; false waits for a lifecycle manager")
    output_frame: str = _parameter("", "tf frame of the published boxes; empty for the rig's base frame")
    score_threshold: float = _parameter(
        0.2, "boxes with a lower score are not published; may change while running", (0.0, 1.0), live=True
    )
    minimum_cameras: int = _parameter(
        0, "a set with fewer images is dropped, with more it is used; 0 for all cameras of the rig", (0, 64)
    )
    sync_tolerance_ms: float = _parameter(
        40.0, "farthest that an image may lie from its expected stamp; less than half a frame period", (0.1, 1000.0)
    )
    sync_accept_ms: float = _parameter(
        10.0, "an image this close to its expected stamp is taken without waiting for a nearer one", (0.0, 1000.0)
    )
    sync_timeout_ms: float = _parameter(200.0, "how long a set waits for missing cameras", (1.0, 10000.0))
    sync_queue_size: int = _parameter(10, "images kept per camera until they find their set", (2, 1000))
    image_reliability: str = _parameter(
        "best_effort",
        "QoS of the image and CameraInfo subscriptions; reliable receives nothing from a best-effort publisher",
        choices=("best_effort", "reliable"),
    )
    jpeg_decoder: str = _parameter(
        "cpu",
        "what decodes sets of JPEGs: cpu, in threads, or cuda, which needs torchvision for CUDA",
        choices=("cpu", "cuda"),
    )
    image_depth: int = _parameter(5, "QoS history depth of the image and CameraInfo subscriptions", (1, 1000))
    transform_timeout_ms: float = _parameter(
        200.0, "how long a set waits for tf and CameraInfo that are late", (0.0, 10000.0)
    )
    history_spacing_s: float = _parameter(
        HistoryConfig.minimum_spacing_s, "frames closer to the last remembered one are not remembered", (0.01, 10.0)
    )
    transform_cache_s: float = _parameter(10.0, "how long tf is remembered", (1.0, 600.0))

    def synchronizer(self, rig: RigConfig) -> SynchronizerConfig:
        """Raises ValueError where the values contradict each other or the rig."""
        names = [camera.name for camera in rig.cameras]
        return SynchronizerConfig(
            offsets_ns=tuple(round(camera.exposure_offset_ms * MILLISECOND_NS) for camera in rig.cameras),
            reference=names.index(rig.reference_camera),
            tolerance_ns=round(self.sync_tolerance_ms * MILLISECOND_NS),
            accept_ns=round(self.sync_accept_ms * MILLISECOND_NS),
            timeout_ns=round(self.sync_timeout_ms * MILLISECOND_NS),
            minimum_cameras=self.minimum_cameras or len(names),
            queue_size=self.sync_queue_size,
        )


_FIELDS: dict[str, Field[Any]] = {entry.name: entry for entry in fields(Settings)}


def names() -> tuple[str, ...]:
    return tuple(_FIELDS)


def declare(node: Node) -> None:
    """Raises a rclpy.exceptions.ParameterException for an override of a wrong type or outside its range."""
    for name, entry in _FIELDS.items():
        node.declare_parameter(name, entry.default, _descriptor(entry))


def read(node: Node) -> Settings:
    return Settings(**{name: node.get_parameter(name).value for name in _FIELDS})


def check(parameters: Sequence[Parameter], configured: bool) -> SetParametersResult:
    """What rclpy's types and ranges cannot say. configured: whether the node has read its parameters already."""
    for parameter in parameters:
        fault = _fault(parameter.name, parameter.value) or (configured and _too_late(parameter.name))
        if fault:
            return SetParametersResult(successful=False, reason=fault)
    return SetParametersResult(successful=True)


def _fault(name: str, value: Any) -> str:
    choices = _FIELDS[name].metadata["choices"] if name in _FIELDS else ()
    if choices and value not in choices:
        return f"{name} is {value!r}, expected one of {', '.join(choices)}"
    if name == "device" and not _is_device(value):
        return f"device is {value!r}, expected {DEVICE_PATTERN}"
    if name.startswith(_CAMERA_PREFIX) and name.endswith("_topic"):
        try:
            validate_topic_name(value)
        except InvalidTopicNameException as error:
            return f"{name} is {value!r}, expected the name of a topic: {error}"
    return ""


def _too_late(name: str) -> str:
    live = name in _FIELDS and _FIELDS[name].metadata["live"]
    ours = name in _FIELDS or name.startswith(_CAMERA_PREFIX)
    return f"{name} takes effect when the node is configured; clean it up first" if ours and not live else ""


def _is_device(value: str) -> bool:
    return value in ("auto", "cpu", "cuda") or (value.startswith("cuda:") and value[5:].isdigit())


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
    for name, entry in _FIELDS.items():
        lines.append(f"| `{name}` | {_default_text(entry)} | {_range_text(entry)} | {entry.metadata['description']} |")
    for what, description in _CAMERA_PARAMETERS.items():
        within = "{:g} to {:g}".format(*_EXPOSURE_OFFSETS_MS) if what == "exposure_offset_ms" else ""
        lines.append(f"| `{_CAMERA_PREFIX}<name>.{what}` | from the rig | {within} | {description} |")
    return "\n".join(lines)


def _default_text(entry: Field[Any]) -> str:
    if isinstance(entry.default, bool):
        return str(entry.default).lower()
    return str(entry.default) if entry.default != "" else "empty"


def _range_text(entry: Field[Any]) -> str:
    if entry.metadata["within"] is not None:
        low, high = entry.metadata["within"]
        return f"{low:g} to {high:g}"
    return ", ".join(entry.metadata["choices"])


# What has a meaning without a ROS graph.
_OFFLINE = tuple(name for name in _FIELDS if name not in ("rig", "autostart", "image_reliability", "image_depth"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The parameters as options of a command that runs the detector without a node, all but the rig."""
    for name in _OFFLINE:
        entry = _FIELDS[name]
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(entry.default),
            default=entry.default,
            metavar="|".join(entry.metadata["choices"]) or type(entry.default).__name__.upper(),
            help=f"{entry.metadata['description']} (default {_default_text(entry)})",
        )


def from_arguments(arguments: argparse.Namespace) -> Settings:
    """Raises ValueError for a value outside its range."""
    values = {name: getattr(arguments, name) for name in ("rig", *_OFFLINE)}
    for name, value in values.items():
        fault = _fault(name, value)
        within = _FIELDS[name].metadata["within"]
        if not fault and within is not None and not within[0] <= value <= within[1]:
            fault = f"{name} is {value}, expected {_range_text(_FIELDS[name])}"
        if fault:
            raise ValueError(fault)
    return Settings(**values)
