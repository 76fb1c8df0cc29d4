"""What docs/ros.md shows of launch files names files, arguments and settings that there are."""

from __future__ import annotations

import ast
import re
from xml.etree import ElementTree

import pytest
from support import REPOSITORY

PAGE = (REPOSITORY / "docs" / "ros.md").read_text(encoding="utf-8")
LAUNCH_FILE = (REPOSITORY / "launch" / "detector.launch.py").read_text(encoding="utf-8")
ARGUMENTS = set(re.findall(r'^    "(\w+)": \(', LAUNCH_FILE, re.MULTILINE))
ARGUMENTS |= set(re.findall(r'DeclareLaunchArgument\(\s*"(\w+)"', LAUNCH_FILE))


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return found


def test_arguments_of_the_launch_file_are_found():
    assert {"rig", "use_sim_time", "namespace", "dds_profile"} <= ARGUMENTS


def test_arguments_on_the_command_line():
    given = set(re.findall(r"(?<![.\w])([a-z_]+):=", PAGE))
    assert len(given) > 5
    assert sorted(given - ARGUMENTS) == []


def test_a_bringup_in_python():
    (call,) = (node for node in ast.walk(ast.parse(block("python"))) if isinstance(node, ast.Dict))
    assert {ast.literal_eval(key) for key in call.keys if key is not None} <= ARGUMENTS
    assert "/launch/detector.launch.py" in block("python")


def test_a_bringup_in_xml():
    detector, bridge = ElementTree.fromstring(block("xml")).iter("include")
    assert {argument.get("name") for argument in detector.iter("arg")} <= ARGUMENTS
    for include in (detector, bridge):
        path = include.get("file", "").replace("$(find-pkg-share bevformer_ros)", str(REPOSITORY))
        assert REPOSITORY.joinpath(path).is_file()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"config/dds/\w+\.\w+", PAGE))))
def test_settings_of_middleware(name):
    assert (REPOSITORY / name).is_file()
