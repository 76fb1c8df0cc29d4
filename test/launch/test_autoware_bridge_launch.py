"""The launch file on stand-ins that take the arguments upstream's classes take."""

from __future__ import annotations

import re
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from support import REPOSITORY

LAUNCH_FILE = REPOSITORY / "launch" / "autoware_bridge.launch.py"


@dataclass
class LaunchDescription:
    entities: list


@dataclass
class LaunchConfiguration:
    variable_name: str


@dataclass
class DeclareLaunchArgument:
    name: str
    default_value: str
    description: str


@dataclass(kw_only=True)
class Node:
    package: str
    executable: str
    name: str
    parameters: list
    remappings: list
    output: str


@pytest.fixture
def entities(monkeypatch):
    modules: dict[str, list[type]] = {
        "launch": [LaunchDescription],
        "launch.actions": [DeclareLaunchArgument],
        "launch.substitutions": [LaunchConfiguration],
        "launch_ros": [],
        "launch_ros.actions": [Node],
    }
    for name, classes in modules.items():
        module = ModuleType(name)
        for entry in classes:
            setattr(module, entry.__name__, entry)
        monkeypatch.setitem(sys.modules, name, module)
    return runpy.run_path(str(LAUNCH_FILE))["generate_launch_description"]().entities


def test_every_topic_of_the_node_can_be_remapped(entities):
    *arguments, node = entities
    declared = {argument.name: argument for argument in arguments}
    source = (REPOSITORY / "bevformer_ros" / "ros" / "autoware" / "bridge_node.py").read_text()
    topics = set(re.findall(r'"~/((?:input|output)/\w+)"', source))
    assert len(topics) == 6
    assert dict(node.remappings) == {f"~/{name}": LaunchConfiguration(name) for name in topics}
    assert set(declared) == {*topics, "params_file"}
    assert all(argument.description for argument in arguments)
    assert node.parameters == [LaunchConfiguration("params_file")]
    assert Path(declared["params_file"].default_value).is_file()


def test_the_executable_exists(entities):
    node = entities[-1]
    assert node.package == "bevformer_ros"
    assert f"install_executable({node.executable} " in (REPOSITORY / "CMakeLists.txt").read_text()
