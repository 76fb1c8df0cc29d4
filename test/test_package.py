"""What the build files promise exists, and what the code needs is declared."""

from __future__ import annotations

import ast
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from support import DDS_PROFILE, REPOSITORY

from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.model.checkpoint import load_weights, read_checkpoint
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.model.network import build_network
from bevformer_ros.resources import config_file, dds_profile_variable, model_file, share_directory
from bevformer_ros.training.config import TrainingConfig

MANIFEST = ElementTree.parse(REPOSITORY / "package.xml").getroot()
CMAKE = (REPOSITORY / "CMakeLists.txt").read_text(encoding="utf-8")
MODULES = sorted((REPOSITORY / "bevformer_ros").rglob("*.py"))
CONFIG_FILES = sorted((REPOSITORY / "config").rglob("*.yaml"))
WEIGHTS = sorted((REPOSITORY / "weights").glob("*.safetensors"))
CONFIG_CLASSES = {"rigs": RigConfig, "models": ModelConfig, "training": TrainingConfig}
FIELDS_WITH_DOCSTRINGS = [
    REPOSITORY / "bevformer_ros" / name
    for name in ("config.py", "model/config.py", "inference/history.py", "training/config.py", "simulation/sensor.py")
]

# How package.xml (rosdep) and setup.py (pip) call what Python imports, where the name differs.
ROSDEP_KEYS = {
    "rerun": None,  # for `view` alone, which says how to get it
    "PIL": "python3-pil",
    "av": None,  # for `decode-video` alone, which says how to get it
    "autoware_perception_msgs": None,  # for autoware_bridge alone; package.xml says so
    "bondpy": None,  # under a lifecycle manager of nav2 alone; docs/node.md says so
    "cv2": "python3-opencv",
    "matplotlib": None,  # for curves alone; package.xml says so
    "motmetrics": None,  # as nuscenes
    "nuscenes": None,  # pip install --no-deps nuscenes-devkit; package.xml says so
    "numpy": "python3-numpy",
    "onnxruntime": None,  # for exported networks alone; package.xml says so
    "onnxscript": None,  # for `export --format onnx` alone, which says so
    "ray": None,  # for `replay --ray` alone, which says so
    "rosbags": "python3-rosbags-pip",
    "safetensors": None,  # there is no key; package.xml says so
    "scipy": "python3-scipy",
    "tqdm": "python3-tqdm",
    "tf2_ros": "tf2_ros_py",
    "timm": None,  # for its backbones alone; package.xml says so
    "torch": "python3-pytorch-pip",
    "torchvision": None,  # timm brings it
    "triton": None,  # torch brings it where it supports CUDA
    "yaml": "python3-yaml",
}
PIP_NAMES = {
    "cv2": "opencv-python-headless",
    "nuscenes": "nuscenes-devkit",
    "PIL": "pillow",
    "rerun": "rerun-sdk",
    "triton": "torch",  # which brings it where it supports CUDA
    "yaml": "PyYAML",
}


def foreign_imports(path):
    """Roots of the modules that a file imports from outside the standard library and this package."""
    roots = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            roots |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            roots.add(node.module.partition(".")[0])
    return roots - set(sys.stdlib_module_names) - {"bevformer_ros"}


def test_manifest_is_what_colcon_accepts():
    assert MANIFEST.get("format") == "3"
    assert MANIFEST.findtext("name") == "bevformer_ros"
    assert re.fullmatch(r"\d+\.\d+\.\d+", MANIFEST.findtext("version"))
    assert MANIFEST.findtext("license") == "Apache-2.0"
    assert MANIFEST.findtext("export/build_type") == "ament_cmake"
    for maintainer in MANIFEST.findall("maintainer"):
        assert re.fullmatch(r"[-\w.+]+@[-\w]+(\.[-\w]+)+", maintainer.get("email"))


def test_manifest_declares_every_import():
    declared = {element.text for element in MANIFEST if element.tag.endswith("depend")}
    files = [*MODULES, *(REPOSITORY / "launch").glob("*.py")]
    needed = {ROSDEP_KEYS.get(root, root) for path in files for root in foreign_imports(path)} - {None}
    assert sorted(needed - declared) == []


def test_manifest_declares_what_cmake_finds():
    declared = {element.text for element in MANIFEST if element.tag.endswith("depend")}
    assert sorted(set(re.findall(r"find_package\((\w+)", CMAKE)) - declared) == []


def test_setup_requires_every_import_of_the_library():
    tree = ast.parse((REPOSITORY / "setup.py").read_text(encoding="utf-8"))
    keywords = {
        keyword.arg: keyword.value for node in ast.walk(tree) if isinstance(node, ast.Call) for keyword in node.keywords
    }
    extras = ast.literal_eval(keywords["extras_require"])
    entries = [
        *ast.literal_eval(keywords["install_requires"]),
        *(entry for extra in extras.values() for entry in extra),
    ]
    required = {re.split(r"[<>=!~]", entry)[0] for entry in entries}
    ros = REPOSITORY / "bevformer_ros" / "ros"
    bags = {*(ros / "bag").rglob("*.py"), ros / "message_definitions.py", ros / "offline_messages.py"}
    library = [path for path in MODULES if path in bags or not path.is_relative_to(ros)]
    wanted = {PIP_NAMES.get(root, root) for path in library for root in foreign_imports(path)}
    # Ray is asked for where it is wanted; torch imports tensorboard.
    assert wanted - {"ray"} == required - {"tensorboard"}


def test_setup_takes_its_version_from_the_manifest():
    command = [sys.executable, "setup.py", "--quiet", "--name", "--version"]
    output = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert output.split() == ["bevformer_ros", MANIFEST.findtext("version")]


def test_type_hints_are_installed():
    """py.typed (PEP 561): by pip through package_data, by CMake with the folder."""
    assert (REPOSITORY / "bevformer_ros" / "py.typed").is_file()
    assert 'package_data={"bevformer_ros": ["py.typed"]}' in (REPOSITORY / "setup.py").read_text(encoding="utf-8")


def test_base_names_of_test_files_are_unique():
    """Plugins of launch_testing, on the path where ROS 2 is sourced, import test files by their base names."""
    names = [path.name for path in (REPOSITORY / "test").rglob("*.py")]
    assert sorted(name for name in set(names) if names.count(name) > 1) == []


def test_every_field_of_a_configuration_says_what_it_is():
    """A string below each field: the command line's help and the API pages read it."""
    silent = []
    for path in FIELDS_WITH_DOCSTRINGS:
        for kind in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(kind, ast.ClassDef) and kind.name.endswith("Config"):
                following = [*kind.body[1:], ast.Pass()]
                for field, next_line in zip(kind.body, following, strict=True):
                    said = isinstance(next_line, ast.Expr) and isinstance(next_line.value, ast.Constant)
                    if isinstance(field, ast.AnnAssign) and not said:
                        silent.append(f"{kind.name}.{ast.unparse(field.target)}")
    assert silent == []


def test_the_citation_names_the_current_version():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == MANIFEST.findtext("version")


def test_changelog_begins_with_the_current_version():
    headings = re.findall(r"^## (\S+)", (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == MANIFEST.findtext("version")


def test_cmake_generates_every_message():
    assert re.findall(r"msg/(\w+)\.msg", CMAKE) == sorted(path.stem for path in (REPOSITORY / "msg").glob("*.msg"))


def test_cmake_installs_folders_that_exist():
    (line,) = re.findall(r"install\(DIRECTORY ([\w ]+) DESTINATION share", CMAKE)
    assert [name for name in line.split() if not (REPOSITORY / name).is_dir()] == []


def test_executables_have_a_main():
    executables = dict(re.findall(r"^install_executable\((\S+) (\S+)\)", CMAKE, re.MULTILINE))
    assert executables.keys() == {"bevformer-ros", "detector", "autoware_bridge"}
    for module in executables.values():
        path = REPOSITORY.joinpath(*module.split(".")).with_suffix(".py")
        functions = [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
        assert "main" in functions, path


def test_executables_do_nothing_when_a_process_that_they_spawned_imports_them(tmp_path):
    (written,) = re.findall(r"file\(WRITE \$\{script\}\n(.*?)\n  \)", CMAKE, re.DOTALL)
    text = "".join(ast.literal_eval(line.strip()) for line in written.splitlines())
    script = tmp_path / "bevformer-ros"
    script.write_text(text.replace("${module}", "bevformer_ros.commands.cli"), encoding="utf-8")
    runpy.run_path(str(script), run_name="__mp_main__")
    with pytest.raises(SystemExit):
        runpy.run_path(str(script), run_name="__main__")


@pytest.mark.parametrize("path", CONFIG_FILES, ids=lambda path: path.stem)
def test_every_shipped_yaml_loads(path):
    kind = CONFIG_CLASSES.get(path.parent.name)
    if kind:
        assert load_yaml(kind, path)
    else:
        (parameters,) = yaml.safe_load(path.read_text(encoding="utf-8")).values()
        assert parameters["ros__parameters"]


@pytest.mark.parametrize("path", WEIGHTS, ids=lambda path: path.stem)
def test_shipped_weights_fit_the_configuration_of_their_name(path):
    checkpoint = read_checkpoint(path)
    assert checkpoint.config == load_yaml(ModelConfig, config_file("models", path.stem))
    assert load_weights(build_network(checkpoint.config), checkpoint.weights) == []
    assert path.stat().st_size < 50e6


def test_a_model_is_its_weights_where_there_are_any(tmp_path, monkeypatch):
    for file in ("config/rigs", "config/models/a.yaml", "config/models/b.yaml", "weights/b.safetensors"):
        path = tmp_path / file
        (path if not path.suffix else path.parent).mkdir(parents=True, exist_ok=True)
        if path.suffix:
            path.touch()
    monkeypatch.setattr("bevformer_ros.resources.share_directory", lambda: tmp_path)
    assert model_file("a") == tmp_path / "config" / "models" / "a.yaml"
    assert model_file("b") == tmp_path / "weights" / "b.safetensors"
    assert model_file("b.safetensors") == Path("b.safetensors")
    with pytest.raises(ValueError, match="'c' is neither a path with a suffix nor one of a, b in"):
        model_file("c")


def test_dds_profile_has_room_for_six_large_images():
    root = ElementTree.parse(DDS_PROFILE).getroot()
    (segment,) = root.iterfind(".//{*}segment_size")
    assert int(segment.text) >= 6 * 1600 * 900 * 3
    declared = [element.text for element in root.iterfind(".//{*}transport_descriptor/{*}transport_id")]
    used = [element.text for element in root.iterfind(".//{*}userTransports/{*}transport_id")]
    assert declared == used


@pytest.mark.parametrize(("package", "prefix"), [("fastrtps", "FASTRTPS"), ("fastdds", "FASTDDS"), ("", "FASTDDS")])
def test_the_variable_of_the_profile_is_the_one_that_this_fast_dds_knows(tmp_path, package, prefix):
    (tmp_path / "ros" / "share" / package).mkdir(parents=True)
    assert dds_profile_variable(["/nowhere", tmp_path / "ros"]) == f"{prefix}_DEFAULT_PROFILES_FILE"


def test_what_a_car_does_without_is_no_dependency_of_the_node():
    declared = {element.text for element in MANIFEST if element.tag in ("depend", "exec_depend")}
    assert declared & {"rviz2", "python3-matplotlib", "python3-sklearn"} == set()


def test_what_comes_from_pip_is_the_same_everywhere():
    """rosdep's keys for pip, which image, scripts and documentation skip in favour of a virtual environment."""
    keys = " ".join(element.text for element in MANIFEST.findall("exec_depend") if element.text.endswith("-pip"))
    for file in ("docker/Dockerfile", ".ci/ros/machine", "docs/ros.md"):
        assert f'--skip-keys "{keys}"' in (REPOSITORY / file).read_text(encoding="utf-8"), file


def test_the_image_enters_what_it_was_built_with(tmp_path):
    entrypoint = (REPOSITORY / "docker" / "entrypoint").read_text(encoding="utf-8")
    sourced = re.findall(r'^source "(.+)"$', entrypoint, re.MULTILINE)
    for path in sourced:
        script = tmp_path / path.replace("$ROS_DISTRO", "lyrical").lstrip("/")
        script.parent.mkdir(parents=True)
        script.write_text(f"export SEEN=$SEEN:{script.parent.name}", encoding="utf-8")
    script = tmp_path / "entrypoint"
    script.write_text(re.sub(r'source "', f'source "{tmp_path}', entrypoint), encoding="utf-8")
    command = ["bash", script, "bash", "-c", "echo $SEEN $0 $1", "one", "two words"]
    done = subprocess.run(
        command, env={"ROS_DISTRO": "lyrical", "PATH": os.environ["PATH"]}, capture_output=True, text=True
    )
    assert done.stdout.split() == [":lyrical:bin:install", "one", "two", "words"], done.stderr


def test_compose_builds_the_file_that_there_is():
    compose = yaml.safe_load((REPOSITORY / "docker" / "compose.yaml").read_text(encoding="utf-8"))
    assert set(compose["services"]) == {"detector", "detector-cuda", "demo"}
    for service in compose["services"].values():
        assert (REPOSITORY / service["build"]["dockerfile"]).is_file()
    assert "shm_size" in compose["services"]["demo"]
    assert compose["services"]["detector-cuda"]["build"]["args"].keys() == {"ROS_DISTRO", "TORCH_INDEX"}


def test_share_directory_of_the_checkout():
    assert share_directory() == REPOSITORY


@pytest.mark.parametrize("library", ["lib/python3.12/site-packages", "local/lib/python3.10/dist-packages"])
def test_share_directory_of_a_prefix(tmp_path, library):
    module = tmp_path / library / "bevformer_ros" / "resources.py"
    module.parent.mkdir(parents=True)
    shutil.copy(REPOSITORY / "bevformer_ros" / "resources.py", module)
    command = [sys.executable, "-c", "from resources import share_directory; print(share_directory())"]
    missing = subprocess.run(command, cwd=module.parent, capture_output=True, text=True)
    assert "finds no config/" in missing.stderr
    rigs = tmp_path / "share" / "bevformer_ros" / "config" / "rigs"
    rigs.mkdir(parents=True)
    found = subprocess.run(command, cwd=module.parent, capture_output=True, text=True)
    assert found.stdout.split() == [str(rigs.parent.parent)]


def test_the_foxglove_layout_shows_topics_that_there_are():
    layout = json.loads((REPOSITORY / "config" / "foxglove.json").read_text(encoding="utf-8"))
    panels, shown = set(layout["configById"]), json.dumps(layout)

    def leaves(node):
        return {node} if isinstance(node, str) else leaves(node["first"]) | leaves(node["second"])

    assert leaves(layout["layout"]) == panels
    documented = (REPOSITORY / "docs" / "node.md").read_text(encoding="utf-8")
    for topic in re.findall(r'"(/detector/\w+)', shown):
        assert f"`{topic}`" in documented
