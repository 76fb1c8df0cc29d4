"""The launch file without launch."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from launch_stand_ins import LaunchConfiguration, stand_in_for_launch
from support import REPOSITORY

LAUNCH_FILE = REPOSITORY / "launch" / "autoware_bridge.launch.py"


@pytest.fixture
def entities(monkeypatch):
    stand_in_for_launch(monkeypatch)
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
