"""Definitions of message types for the rosbags library: those installed, those that this package brings, its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from bevformer_ros.resources import share_directory


def typestore_with(type_name: str) -> Typestore:
    """The one typestore of this process, with a type and all that it consists of.

    Raises ValueError for a type without a definition.
    """
    typestore = _typestore()
    waiting, found = [type_name], {}
    while waiting:
        name = waiting.pop()
        if name in found or name in typestore.fielddefs:
            continue
        found.update(_definition(name))
        waiting += list(_parts(found[name][1]))
    if found:
        typestore.register(found)
    return typestore


def _definition(type_name: str) -> dict[str, Any]:
    package, _, name = type_name.partition("/msg/")
    for folder in _folders(package):
        file = folder / f"{name}.msg"
        if file.is_file():
            return get_types_from_msg(file.read_text(encoding="utf-8"), type_name)
    standard = _standard_types()
    if type_name not in standard.fielddefs:
        raise ValueError(
            f"no definition of {type_name} under AMENT_PREFIX_PATH; source the workspace that builds {package}"
        )
    return {type_name: standard.fielddefs[type_name]}


def _folders(package: str) -> Iterator[Path]:
    for prefix in filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)):
        yield Path(prefix) / "share" / package / "msg"
    yield share_directory() / ("msg" if package == "bevformer_ros" else f"underlay/{package}/msg")


@lru_cache(maxsize=1)
def _typestore() -> Typestore:
    return get_typestore(Stores.EMPTY)


@lru_cache(maxsize=1)
def _standard_types() -> Typestore:
    return get_typestore(Stores.LATEST)


def _parts(fields: Any) -> Iterator[str]:
    """Names of the message types among a definition's fields, those in arrays and sequences included."""
    for _, (kind, value) in fields:
        if kind in (Nodetype.ARRAY, Nodetype.SEQUENCE):
            kind, value = value[0]
        if kind == Nodetype.NAME:
            yield value
