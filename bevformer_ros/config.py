"""Configuration as data: frozen dataclasses that check themselves, and one YAML loader that forgives nothing."""

from __future__ import annotations

import ast
import inspect
import math
import re
import textwrap
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import yaml

from bevformer_ros.lens import Lens, LensModel

Config = TypeVar("Config")

_LARGEST_YAML = 1 << 20  # bytes
LONGEST_REPEAT_MS = 1000.0
_LARGEST_WHOLE_NUMBER = 1 << 53  # of those that are floats without loss


class _PlainLoader(yaml.SafeLoader):
    """Without aliases: a few lines of them can mean more values than fit into memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(
                None, None, f"*{event.anchor} is an alias; write the values out", event.start_mark
            )
        return super().compose_node(parent, index)


def load_yaml(kind: type[Config], path: str | Path, changes: Mapping[str, Any] | None = None) -> Config:
    """Read a YAML file into the dataclass `kind`.

    changes: values in the place of the file's, by the dotted path of their key, such as optimiser.learning_rate.
    Raises ValueError that names the file, the key and what was expected: unknown, missing or mistyped keys,
    and whatever the dataclass itself refuses.
    """
    try:
        with Path(path).open("rb") as file:
            text = file.read(_LARGEST_YAML + 1)
        if len(text) > _LARGEST_YAML:
            raise ValueError(f"{path}: larger than {_LARGEST_YAML} bytes, expected a configuration")
        data = yaml.load(text, _PlainLoader)
    except (yaml.YAMLError, UnicodeError, RecursionError) as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from error
    try:
        return from_dict(kind, _changed(data, changes) if changes else data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _changed(data: Any, changes: Mapping[str, Any]) -> Any:
    for key, value in changes.items():
        first, _, rest = key.partition(".")
        inner = data.get(first) if isinstance(data.get(first), dict) else {}
        data = {**data, first: _changed(inner, {rest: value}) if rest else value}
    return data


def field_docstrings(kind: type) -> dict[str, str]:
    """What stands as a string under each field of a dataclass, on one line; nothing for a field without one."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, text in pairwise(definition.body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            assert isinstance(field.target, ast.Name)
            found[field.target.id] = " ".join(str(text.value.value).split())
    return found


def from_dict(kind: type[Config], data: Any, where: str = "") -> Config:
    """Build the dataclass `kind` from nested plain data; `where` names the place in error messages."""
    here = where or kind.__name__
    if not isinstance(data, dict):
        raise ValueError(f"{here}: expected a mapping, got {data!r:.200}")
    known = {entry.name: entry for entry in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - set(known), key=str)
    if unknown:
        raise ValueError(f"{here}: unknown key {', '.join(map(repr, unknown))}; known are {', '.join(known)}")
    required = [name for name, entry in known.items() if entry.default is MISSING and entry.default_factory is MISSING]
    missing = [name for name in required if name not in data]
    if missing:
        raise ValueError(f"{here}: missing key {', '.join(map(repr, missing))}")
    hints = typing.get_type_hints(kind)
    values = {name: _convert(hints[name], value, f"{here}.{name}") for name, value in data.items()}
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"{here}: {error}") from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        kinds = [argument for argument in arguments if argument is not type(None)]
        return _convert(_kind_with_keys(kinds, value, where), value, where)
    if is_dataclass(hint):
        return from_dict(hint, value, where)  # type: ignore[arg-type]
    if origin is tuple:
        return _convert_tuple(arguments, value, where)
    if origin is typing.Literal:
        if value not in arguments:
            raise ValueError(f"{where}: {value!r:.200} is not one of {', '.join(map(repr, arguments))}")
        return value
    if hint is float and type(value) is int and abs(value) < _LARGEST_WHOLE_NUMBER:
        return float(value)
    if hint is float and _is_exponential(value):
        return float(value)
    if type(value) is not hint:
        raise ValueError(f"{where}: expected {hint.__name__}, got {value!r:.200}")
    return value


def _is_exponential(value: Any) -> bool:
    """1e-4, a string to YAML 1.1, which expects 1.0e-4."""
    return isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value) is not None


def _kind_with_keys(kinds: list[Any], value: Any, where: str) -> Any:
    """Of several dataclasses the first that knows all keys of the value."""
    if len(kinds) == 1:
        return kinds[0]
    keys = {kind: [entry.name for entry in fields(kind)] for kind in kinds}
    given = value if isinstance(value, dict) else {}
    fitting = [kind for kind in kinds if set(given) <= set(keys[kind])]
    if not fitting:
        choices = " or ".join(f"{kind.__name__} ({', '.join(keys[kind])})" for kind in kinds)
        raise ValueError(f"{where}: expected keys of one of {choices}, got {', '.join(map(repr, given))}")
    return fitting[0]


def _convert_tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{where}: expected a list, got {value!r:.200}")
    if arguments[-1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(arguments) != len(value):
        raise ValueError(f"{where}: expected {len(arguments)} values, got {len(value)}")
    return tuple(
        _convert(hint, item, f"{where}[{index}]")
        for index, (hint, item) in enumerate(zip(arguments, value, strict=True))
    )


@dataclass(frozen=True)
class SimulatedCameraConfig:
    """A camera of the simulated car that is not one of nuScenes'; what a real one's CameraInfo and tf say."""

    size: tuple[int, int]
    """Width and height of its images."""
    focal_length: float
    """In pixels."""
    position: tuple[float, float, float]
    """Metres in the base frame, which stands on the ground."""
    roll_pitch_yaw: tuple[float, float, float]
    """Radians, of an axis that looks ahead where all are zero."""
    principal_point: tuple[float, float] | None = None
    """Column and row; None for the middle of the image."""
    lens: LensModel = "plumb_bob"
    """As CameraInfo names it."""
    distortion: tuple[float, ...] = ()
    """Coefficients as in CameraInfo.d."""

    def __post_init__(self) -> None:
        if min(self.size) < 1 or self.focal_length <= 0:
            raise ValueError(
                f"size is {self.size} and focal_length {self.focal_length}, expected positive numbers of pixels"
            )
        Lens(self.lens, self.distortion)


@dataclass(frozen=True)
class CameraConfig:
    """Where one camera's data comes from."""

    name: str
    """What messages, parameters and logs call it."""
    image_topic: str
    """Of sensor_msgs/Image, or CompressedImage where `compressed`."""
    camera_info_topic: str
    """Of sensor_msgs/CameraInfo."""
    compressed: bool = False
    """Whether the image topic carries CompressedImage."""
    rectified: bool = False
    """Whether the images on the topic are rectified already, so that P of their CameraInfo holds and its distortion
    does not."""
    repeat_ms: float = 0.0
    """How much older than its expected stamp an image may be that serves in several sets, where no nearer one comes:
    for a camera slower than the reference camera. 0: each serves once."""
    crop: tuple[int, int, int, int] | None = None
    """Left, top, right, bottom in pixels of the images as they arrive: the part that is used. None for all."""
    model_camera: str | None = None
    """The model's camera whose learned embedding it takes; None for that of its own name. Cameras may share one."""
    field_of_view_deg: float | None = None
    """Of the pinhole camera that the network sees in its place, across the width of an image of the same size. None
    keeps the focal length of the calibration; a fisheye's image is undistorted into a pinhole's either way."""
    masks: tuple[tuple[tuple[float, float], ...], ...] = ()
    """Polygons of columns and rows of the images as they arrive, in which the own car is seen, or its reflection: the
    network gets its mean colour there, and proposes nothing."""
    simulated: SimulatedCameraConfig | None = None
    """For `bevformer-ros simulate` alone: how the camera is built and mounted. None for one of nuScenes' names."""
    exposure_offset_ms: float = 0.0
    """Expected stamp of its image relative to the reference camera's; used to pick the nearest image, never to alter a
    stamp."""

    def __post_init__(self) -> None:
        if not 0 <= self.repeat_ms <= LONGEST_REPEAT_MS:
            raise ValueError(f"repeat_ms of {self.name} is {self.repeat_ms}, expected 0 to {LONGEST_REPEAT_MS:g}")
        if self.crop is not None:
            left, top, right, bottom = self.crop
            if not (0 <= left < right and 0 <= top < bottom):
                raise ValueError(f"crop of {self.name} is {self.crop}, expected left, top, right, bottom in pixels")
        for mask in self.masks:
            if len(mask) < 3 or min(min(corner) for corner in mask) < 0:
                raise ValueError(
                    f"masks of {self.name} holds {[list(corner) for corner in mask]}, expected at least three corners "
                    "[column, row] in the image"
                )
        angle = self.field_of_view_deg
        if angle is not None and not 1 <= angle <= 170:
            raise ValueError(f"field_of_view_deg of {self.name} is {angle}, expected 1 to 170")


@dataclass(frozen=True)
class BevFrameConfig:
    """The frame in which the model thinks: x right, y forward, z up (the nuScenes LIDAR_TOP convention)."""

    translation: tuple[float, float, float]
    """Metres, of its fixed pose in the parent."""
    roll_pitch_yaw: tuple[float, float, float]
    """Radians, of its fixed pose in the parent."""
    parent: str | None = None
    """A tf frame: None for the base frame, or the frame of a lidar that is mounted as in nuScenes."""

    def __post_init__(self) -> None:
        for name in ("translation", "roll_pitch_yaw"):
            if not all(map(math.isfinite, getattr(self, name))):
                raise ValueError(f"{name} is {getattr(self, name)}, expected finite numbers")


@dataclass(frozen=True)
class RigConfig:
    """A vehicle: its cameras and its frames (REP-105)."""

    cameras: tuple[CameraConfig, ...]
    """In any order, in which they stand in messages and pictures."""
    reference_camera: str
    """Name of the camera whose stamps are those of the sets."""
    base_frame: str
    """tf frame of the vehicle, x forward."""
    fixed_frame: str
    """tf frame of the world in which the vehicle moves, such as odom or map."""
    bev_frame: BevFrameConfig
    """Pose of the frame in which the model thinks."""

    def __post_init__(self) -> None:
        names = [camera.name for camera in self.cameras]
        if not names:
            raise ValueError("cameras is empty, a rig needs at least one")
        doubles = sorted({name for name in names if names.count(name) > 1})
        if doubles:
            raise ValueError(f"cameras names {', '.join(doubles)} more than once")
        if self.reference_camera not in names:
            raise ValueError(f"reference_camera {self.reference_camera!r} is not one of {', '.join(names)}")
        self._check_topics()
        for key, frame in (
            ("base_frame", self.base_frame),
            ("fixed_frame", self.fixed_frame),
            ("bev_frame.parent", self.bev_frame.parent),
        ):
            if frame is not None and (not frame or frame.startswith("/")):
                raise ValueError(f"{key} is {frame!r}, expected the name of a tf frame, without a leading slash")
        if self.base_frame == self.fixed_frame:
            raise ValueError(f"base_frame and fixed_frame are both {self.base_frame!r}; the car must move in the world")

    @property
    def model_cameras(self) -> dict[str, str]:
        """For each camera, in the order of the rig, the model's whose embedding it takes."""
        return {camera.name: camera.model_camera or camera.name for camera in self.cameras}

    def _check_topics(self) -> None:
        """A topic of one camera cannot be another's."""
        owners: dict[str, str] = {}
        for camera in self.cameras:
            for key in ("image_topic", "camera_info_topic"):
                topic = getattr(camera, key)
                if not topic:
                    raise ValueError(f"{key} of {camera.name} is empty, expected the name of a topic")
                if topic in owners:
                    raise ValueError(
                        f"{key} of {camera.name} is {topic}, which is {owners[topic]} already; give each a topic of "
                        "its own"
                    )
                owners[topic] = f"{key} of {camera.name}"
