"""The launch file without launch; with it: test_real_launch."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from launch_stand_ins import DeclareLaunchArgument, OpaqueFunction, ParameterValue, stand_in_for_launch
from support import DDS_PROFILE, REPOSITORY

pytest.importorskip("rclpy", reason="needs the ROS environment that `make test` makes")

from bevformer_ros.resources import DDS_PROFILE_VARIABLE
from bevformer_ros.ros import topics
from bevformer_ros.ros.node.settings import SETTINGS

LAUNCH_FILE = REPOSITORY / "launch" / "detector.launch.py"
CMAKE = (REPOSITORY / "CMakeLists.txt").read_text()


@pytest.fixture
def launch(monkeypatch):
    """launch(argument="value", ...): the actions that would follow; .arguments: those declared, by name."""
    stand_in_for_launch(monkeypatch)
    launch_file = runpy.run_path(str(LAUNCH_FILE))
    entities = launch_file["generate_launch_description"]().entities
    declared = {entry.name: entry for entry in entities if isinstance(entry, DeclareLaunchArgument)}
    (start,) = (entry.function for entry in entities if isinstance(entry, OpaqueFunction))

    def run(**given):
        given = {name.replace("__", "."): value for name, value in given.items()}
        context = SimpleNamespace(launch_configurations=given)
        for name, argument in declared.items():
            default = argument.default_value
            given.setdefault(name, default if isinstance(default, str) else default.perform(context))
            assert argument.choices is None or given[name] in argument.choices
        return start(context)

    run.arguments = declared  # type: ignore[attr-defined]
    run.parameters = launch_file["PARAMETERS"]  # type: ignore[attr-defined]
    return run


def parameters_of(node):
    """What the node is given beside the file, as launch would evaluate it."""
    values = {}
    for name, value in node.parameters[1].items() if len(node.parameters) > 1 else ():
        if isinstance(value, ParameterValue):  # of no type: launch reads it as YAML
            value = value.value_type(value.value) if value.value_type else yaml.safe_load(value.value)
        values[name] = value
    return values


def test_every_argument_is_described(launch):
    for name, argument in launch.arguments.items():
        assert argument.description, name
    expected = {"rig", "model", "weights", "backend", "device", "precision", "namespace", "use_sim_time", "autostart"}
    expected |= {"rviz", "output_frame", "score_threshold", "minimum_cameras", "sync_tolerance_ms", "image_reliability"}
    assert expected | {"dds_profile", "tune_process"} <= set(launch.arguments)


def test_arguments_have_the_types_of_the_parameters(launch):
    for name, (kind, _) in launch.parameters.items():
        default = SETTINGS[name].default if name in SETTINGS else False
        assert kind is (type(default) if isinstance(default, (str, bool)) else None), name


def test_plain_launch_leaves_the_defaults_to_the_node(launch, monkeypatch):
    monkeypatch.delenv(DDS_PROFILE_VARIABLE)
    (node,) = launch()
    assert (node.package, node.executable, node.name, node.namespace) == ("bevformer_ros", "detector", "detector", "")
    assert node.parameters == [str(REPOSITORY / "config" / "detector.yaml")]
    assert node.additional_env[DDS_PROFILE_VARIABLE] == str(DDS_PROFILE)
    assert node.additional_env["MALLOC_ARENA_MAX"] == "1"


def test_arguments_become_parameters_of_the_node(launch):
    given = {"rig": "nuscenes", "model": "tiny", "weights": "w.pth", "device": "cpu", "precision": "float32"}
    (node,) = launch(**given, autostart="false", tracking="True", use_sim_time="true", namespace="car1")
    assert parameters_of(node) == {**given, "autostart": False, "tracking": True, "use_sim_time": True}
    assert node.namespace == "car1"


def test_numbers_frames_and_topics(launch):
    (node,) = launch(
        output_frame="map",
        score_threshold="0.5",
        minimum_cameras="5",
        cameras__CAM_FRONT__image_topic="/front/image",
        cameras__CAM_FRONT__compressed="true",
        of_the_parent="1",
    )
    assert parameters_of(node) == {
        "output_frame": "map",
        "score_threshold": 0.5,
        "minimum_cameras": 5,
        "cameras.CAM_FRONT.image_topic": "/front/image",
        "cameras.CAM_FRONT.compressed": True,
    }


@pytest.mark.parametrize("value", ["True", "False", "true", "false"])
def test_the_time_of_a_parent_is_taken(launch, value):
    """As a Python launch file says it, and neither the parameter file nor anything else takes it back."""
    (node,) = launch(use_sim_time=value)
    assert parameters_of(node) == {"use_sim_time": value.lower() == "true"}
    assert "use_sim_time" not in Path(node.parameters[0]).read_text()


def test_environment_can_be_chosen(launch, monkeypatch):
    monkeypatch.setenv(DDS_PROFILE_VARIABLE, "mine.xml")
    (node,) = launch(tune_process="false")
    assert node.additional_env == {DDS_PROFILE_VARIABLE: "mine.xml"}
    (node,) = launch(tune_process="false", dds_profile="")
    assert node.additional_env == {}


@pytest.mark.parametrize(
    ("middleware", "variable", "setting"),
    [
        ("rmw_cyclonedds_cpp", "CYCLONEDDS_URI", f"file://{REPOSITORY}/config/dds/cyclonedds_large_images.xml"),
        ("rmw_zenoh_cpp", "ZENOH_CONFIG_OVERRIDE", "transport/shared_memory/enabled=true;"),
    ],
)
def test_other_middleware_gets_its_settings(launch, monkeypatch, middleware, variable, setting):
    monkeypatch.setenv("RMW_IMPLEMENTATION", middleware)
    monkeypatch.delenv(variable, raising=False)
    (node,) = launch()
    assert node.additional_env[variable].startswith(setting)
    monkeypatch.setenv(variable, "mine")
    (node,) = launch()
    assert variable not in node.additional_env


def test_a_process_that_ended_is_started_again_where_that_is_wanted(launch):
    (node,) = launch()
    assert (node.respawn, node.respawn_delay) == (False, 2.0)
    (node,) = launch(respawn="true", respawn_delay="5")
    assert (node.respawn, node.respawn_delay) == (True, 5.0)


@pytest.fixture
def rviz2(monkeypatch, tmp_path):
    """As if it were installed."""
    entry = tmp_path / "share" / "ament_index" / "resource_index" / "packages" / "rviz2"
    entry.parent.mkdir(parents=True)
    entry.touch()
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))


def test_without_rviz2_one_line_says_how_to_get_it(launch, monkeypatch):
    monkeypatch.setenv("ROS_DISTRO", "lyrical")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(REPOSITORY))
    node, line = launch(rviz="true")
    assert node.executable == "detector"
    assert line.msg == "rviz:=true, but there is no rviz2 here; install it with: sudo apt install ros-lyrical-rviz2"


def test_rviz(launch, rviz2):
    _, rviz = launch(rviz="true", use_sim_time="true", namespace="car1")
    assert (rviz.package, rviz.executable, rviz.namespace) == ("rviz2", "rviz2", "car1")
    assert rviz.parameters == [{"use_sim_time": True}]
    assert rviz.arguments == ["-d", str(REPOSITORY / "rviz" / "detector.rviz")]


def test_everything_that_is_named_exists(launch, rviz2):
    detector, rviz = launch(rviz="true")
    for path in (detector.parameters[0], rviz.arguments[1], detector.additional_env[DDS_PROFILE_VARIABLE]):
        assert Path(path).is_file(), path
    assert re.search(rf"install_executable\({detector.executable} (\S+)\)", CMAKE)
    assert re.search(r"install\(DIRECTORY config launch rviz weights DESTINATION share/", CMAKE)


def test_the_parameter_file_names_only_parameters_that_exist():
    data = yaml.safe_load((REPOSITORY / "config" / "detector.yaml").read_text())
    given = data["/**"]["ros__parameters"]
    assert set(given) <= set(SETTINGS)  # without use_sim_time, which would take back what a parent says


# Of rviz_common and rviz_default_plugins, as their plugin descriptions register them.
RVIZ_CLASSES = {
    *(f"rviz_common/{name}" for name in ("Displays", "Time", "Views", "Tool Properties", "Selection")),
    *(f"rviz_default_plugins/{name}" for name in ("Axes", "Grid", "Image", "MarkerArray", "TF")),
    *(f"rviz_default_plugins/{name}" for name in ("FocusCamera", "MoveCamera", "Select", "Orbit")),
}


def test_rviz_knows_every_class_that_is_named():
    text = (REPOSITORY / "rviz" / "detector.rviz").read_text()
    named = set(re.findall(r"Class: (\S+)", text)) - {'""'}
    assert len(named) >= 10
    assert sorted(named - RVIZ_CLASSES) == []


def test_rviz_shows_topics_that_the_node_publishes():
    displays = yaml.safe_load((REPOSITORY / "rviz" / "detector.rviz").read_text())["Visualization Manager"]["Displays"]
    shown = {entry["Topic"]["Value"] for entry in displays if "Topic" in entry}
    published = (topics.MARKERS, topics.PROPOSAL_MARKERS, topics.TRACK_MARKERS, topics.OVERLAY)
    assert shown == {name.replace("~", topics.NODE_NAME) for name in published}
