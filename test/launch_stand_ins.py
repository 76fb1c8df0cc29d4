"""Stand-ins for what the launch files use of upstream's launch, with exactly the arguments that its classes take."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from types import ModuleType

import pytest


@dataclass
class LaunchDescription:
    entities: list


class DeclareLaunchArgument:
    def __init__(self, name, *, default_value=None, description=None, choices=None):
        self.name, self.default_value, self.description, self.choices = name, default_value, description, choices


@dataclass
class LogInfo:
    msg: str


class OpaqueFunction:
    def __init__(self, *, function):
        self.function = function


@dataclass
class LaunchConfiguration:
    variable_name: str

    def perform(self, context):
        return context.launch_configurations[self.variable_name]


class EnvironmentVariable:
    def __init__(self, name, *, default_value=None):
        self.name, self.default_value = name, default_value

    def perform(self, context):
        return os.environ.get(self.name, self.default_value)


class ParameterValue:
    def __init__(self, value, *, value_type=None):
        self.value, self.value_type = value, value_type


@dataclass(kw_only=True)
class Node:
    executable: str
    package: str
    name: str = ""
    namespace: str = ""
    parameters: list = field(default_factory=list)
    remappings: list = field(default_factory=list)
    arguments: list = field(default_factory=list)
    additional_env: dict = field(default_factory=dict)
    output: str = "log"
    respawn: bool = False
    respawn_delay: float | None = None


_MODULES: dict[str, list[type]] = {
    "launch": [LaunchDescription],
    "launch.actions": [DeclareLaunchArgument, LogInfo, OpaqueFunction],
    "launch.substitutions": [EnvironmentVariable, LaunchConfiguration],
    "launch_ros": [],
    "launch_ros.actions": [Node],
    "launch_ros.parameter_descriptions": [ParameterValue],
}


def stand_in_for_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, classes in _MODULES.items():
        module = ModuleType(name)
        for entry in classes:
            setattr(module, entry.__name__, entry)
        monkeypatch.setitem(sys.modules, name, module)
