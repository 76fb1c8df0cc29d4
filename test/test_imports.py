"""The walls of the package: who may import whom, and that everything outside ros/ works where ROS is absent."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from support import REPOSITORY
from without_ros import ROS_LIBRARIES, blocker

PACKAGE = REPOSITORY / "bevformer_ros"
FILES = sorted(PACKAGE.rglob("*.py"))
ROS_AND_BAGS = {*ROS_LIBRARIES, "rosbags"}

LABORATORY = tuple(
    f"bevformer_ros.{room}" for room in ("benchmarks", "datasets", "evaluation", "simulation", "training")
)
# A room or module below bevformer_ros, and what it must not import. Losses never enter what runs on a car.
WALLS = {
    **dict.fromkeys(("types", "taxonomy", "geometry", "lens", "config", "resources"), ("torch", "bevformer_ros.model")),
    "model": ("bevformer_ros.ros", "bevformer_ros.inference", *LABORATORY),
    "inference": ("bevformer_ros.ros", *LABORATORY),
    "tracking": ("torch", "bevformer_ros.ros", "bevformer_ros.model", "bevformer_ros.inference", *LABORATORY),
    "ros.node": LABORATORY,
    **dict.fromkeys(
        ("training", "simulation", "evaluation", "datasets", "benchmarks", "drawing"), ("bevformer_ros.ros",)
    ),
}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, anywhere in it; relative ones made absolute."""
    package = list(path.relative_to(REPOSITORY).parent.parts)
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def is_ros(name: str) -> bool:
    root = name.partition(".")[0]
    return root in ROS_AND_BAGS or root.endswith("_msgs") or f"{name}.".startswith("bevformer_ros.msg.")


def is_within(name: str, wall: str) -> bool:
    return name == wall or name.startswith(f"{wall}.")


def belongs_to_ros(path: Path) -> bool:
    return path.is_relative_to(PACKAGE / "ros")


def may_need_ros(path: Path) -> bool:
    """A command may import what lies in ros/, and with it ROS itself."""
    return belongs_to_ros(path) or path.is_relative_to(PACKAGE / "commands")


def may_start_a_command(path: Path) -> bool:
    return path.is_relative_to(PACKAGE / "commands") or path == PACKAGE / "__main__.py"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("", set()),
        ("import numpy.linalg as l", {"numpy.linalg"}),
        ("def f():\n    from . import types", {"bevformer_ros", "bevformer_ros.types"}),
        (
            "from bevformer_ros.ros.node.detector_node import DetectorNode",
            {"bevformer_ros.ros.node.detector_node", "bevformer_ros.ros.node.detector_node.DetectorNode"},
        ),
    ],
)
def test_imports_of_a_file(tmp_path, monkeypatch, source, expected):
    monkeypatch.setattr(sys.modules[__name__], "REPOSITORY", tmp_path)
    path = tmp_path / "bevformer_ros" / "module.py"
    path.parent.mkdir()
    path.write_text(source)
    assert imports(path) == expected


@pytest.mark.parametrize("path", [path for path in FILES if not belongs_to_ros(path)], ids=module_name)
def test_only_the_ros_folder_imports_ros(path):
    assert not sorted(name for name in imports(path) if is_ros(name))


@pytest.mark.parametrize("path", [path for path in FILES if not belongs_to_ros(path)], ids=module_name)
def test_nothing_imports_upwards(path):
    below = module_name(path).removeprefix("bevformer_ros").removeprefix(".")
    walls = [wall for place, names in WALLS.items() if is_within(below, place) for wall in names]
    assert not sorted(name for name in imports(path) if any(is_within(name, wall) for wall in walls))


@pytest.mark.parametrize("path", [path for path in FILES if not may_start_a_command(path)], ids=module_name)
def test_nobody_imports_a_command(path):
    assert not sorted(name for name in imports(path) if is_within(name, "bevformer_ros.commands"))


@pytest.mark.parametrize("path", sorted((PACKAGE / "ros" / "bag").rglob("*.py")), ids=module_name)
def test_bags_need_the_rosbags_library_alone(path):
    """ros.messages takes the classes of ROS where there are any."""
    assert not sorted(name for name in imports(path) if is_ros(name) and not is_within(name, "rosbags"))


@pytest.mark.skipif(find_spec("rclpy") is None, reason="needs a ROS environment (make test provides one)")
def test_the_node_needs_no_rosbags_and_the_replay_no_laboratory():
    script = """
import sys
import bevformer_ros.ros.node.detector_node
assert "rosbags" not in sys.modules
import bevformer_ros.ros.bag.replay_tasks
print(sorted(name for name in sys.modules if name.startswith("bevformer_ros.")))
"""
    result = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    loaded = ast.literal_eval(result.stdout.splitlines()[-1])
    assert not [name for name in loaded if any(is_within(name, room) for room in LABORATORY)]


def test_everything_outside_the_ros_folder_imports_without_ros():
    modules = [module_name(path) for path in FILES if not may_need_ros(path)]
    script = (
        blocker(ROS_AND_BAGS)
        + f"""
import importlib
for name in {modules!r}:
    importlib.import_module(name)
"""
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(find_spec("rclpy") is None, reason="needs a ROS environment (make test provides one)")
@pytest.mark.parametrize("path", [path for path in FILES if belongs_to_ros(path)], ids=module_name)
def test_ros_modules_import(path):
    if path.is_relative_to(PACKAGE / "ros" / "autoware"):
        pytest.importorskip("autoware_perception_msgs", reason="needs Autoware's messages, which `make env` builds")
    if path.stem == "viewer":
        pytest.importorskip("rerun", reason="needs rerun-sdk, which `view` alone needs")
    import_module(module_name(path))
