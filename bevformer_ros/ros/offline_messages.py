"""Message classes on a machine without ROS: the rosbags library's, with every field at its default when made."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from rosbags.interfaces import Nodetype

from bevformer_ros.ros.message_definitions import typestore_with

# rosbags' definitions do not keep the defaults that a .msg file may state; these are all that our messages have.
_STATED_DEFAULTS = {("geometry_msgs/msg/Quaternion", "w"): 1.0}
_NUMPY_TYPES = {"byte": "uint8", "char": "uint8", "octet": "uint8"}


@cache
def offline_class(type_name: str) -> Any:
    """A class to be called as rclpy's: Header(frame_id="map"). Number arrays are numpy's, whatever is assigned."""
    typestore = typestore_with(type_name)
    base = typestore.types[type_name]
    descriptions = dict(typestore.fielddefs[type_name][1])
    arrays = {name: dtype for name, field in descriptions.items() if (dtype := _array_type(field)) is not None}

    def initialise(self: Any, **values: Any) -> None:
        strangers = values.keys() - descriptions.keys()
        if strangers:
            raise TypeError(f"{type_name} has no field {', '.join(sorted(strangers))}")
        for name, field in descriptions.items():
            setattr(self, name, values[name] if name in values else _default(type_name, name, field))

    def assign(self: Any, name: str, value: Any) -> None:
        object.__setattr__(self, name, np.asarray(value, arrays[name]) if name in arrays else value)

    return type(base.__name__, (base,), {"__init__": initialise, "__setattr__": assign})


def _array_type(field: Any) -> str | None:
    """numpy's name for the numbers of an array or sequence."""
    kind, value = field
    if kind not in (Nodetype.ARRAY, Nodetype.SEQUENCE):
        return None
    inner_kind, inner = value[0]
    if inner_kind != Nodetype.BASE or inner[0] in ("string", "wstring"):
        return None
    return _NUMPY_TYPES.get(inner[0], inner[0])


def _default(type_name: str, name: str, field: Any) -> Any:
    if (type_name, name) in _STATED_DEFAULTS:
        return _STATED_DEFAULTS[type_name, name]
    kind, value = field
    if kind == Nodetype.NAME:
        return offline_class(value)()
    if kind == Nodetype.BASE:
        return _base_default(value[0])
    inner, length = value
    count = length if kind == Nodetype.ARRAY else 0
    dtype = _array_type(field)
    return [_default(type_name, "", inner) for _ in range(count)] if dtype is None else np.zeros(count, dtype)


def _base_default(name: str) -> Any:
    if name in ("string", "wstring"):
        return ""
    return False if name == "bool" else 0.0 if name.startswith("float") else 0
