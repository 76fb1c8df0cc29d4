from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest

pytest.importorskip("rclpy", reason="needs the ROS environment that `make test` makes")

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter
from support import REPOSITORY

from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.ros.node import parameters
from bevformer_ros.ros.node.settings import SETTINGS, Settings
from bevformer_ros.types import MILLISECOND_NS

RIG = load_yaml(RigConfig, REPOSITORY / "config" / "rigs" / "nuscenes.yaml")


class BareNode(Node):
    configured = False


@pytest.fixture
def make_node() -> Iterator:
    """make_node(name=value, ...): a bare node with these overrides, whose parameters are checked as the detector's."""
    context = rclpy.Context()
    rclpy.init(context=context)
    nodes = []

    def make(**overrides):
        node = BareNode(
            "bare",
            context=context,
            start_parameter_services=False,
            parameter_overrides=[Parameter(name.replace("__", "."), value=value) for name, value in overrides.items()],
        )
        nodes.append(node)
        node.add_on_set_parameters_callback(lambda changed: parameters.check(changed, node.configured))
        parameters.declare(node)
        return node

    yield make
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)


def test_defaults_lie_within_their_ranges_and_are_described(make_node):
    node = make_node()
    assert parameters.read(node) == Settings()
    for name in SETTINGS:
        descriptor = node.describe_parameter(name)
        assert descriptor.description, name
        kind = type(getattr(Settings(), name))
        assert descriptor.dynamic_typing == (kind is float), name
        assert len(descriptor.integer_range) == (kind is int), name


def test_overrides_are_read(make_node):
    settings = parameters.read(make_node(model="t8", score_threshold=0.5, minimum_cameras=4))
    assert (settings.model, settings.score_threshold, settings.minimum_cameras) == ("t8", 0.5, 4)


def test_a_threshold_for_each_class(make_node):
    for values in ([0.1 * number for number in range(10)], [0, 1] * 5):
        node = make_node(score_threshold=values)
        assert parameters.read(node).score_threshold == tuple(map(float, values))
    node.configured = True
    assert node.set_parameters([Parameter("score_threshold", value=[0.5] * 10)])[0].successful
    assert parameters.read(node).score_threshold == (0.5,) * 10


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("score_threshold", [0.5] * 9, "expected one number or 10: barrier, bicycle"),
        ("score_threshold", [0.5] * 9 + [1.5], "score_threshold is 1.5"),
        ("score_threshold", 1.5, "score_threshold"),
        ("score_threshold", "high", "score_threshold"),
        ("minimum_cameras", -1, "minimum_cameras"),
        ("precision", "int8", "precision is 'int8', expected one of auto, float32, bfloat16, float16"),
        ("image_reliability", "sometimes", "expected one of best_effort, reliable"),
        ("device", "gpu", "device is 'gpu', expected auto, cpu, cuda or cuda:N"),
        ("sync_timeout_ms", 0.0, "sync_timeout_ms is 0.0, expected 1 to 10000"),
        ("sync_timeout_ms", math.nan, "sync_timeout_ms is nan"),
    ],
)
def test_wrong_ones_are_refused_at_start_and_at_run_time(make_node, name, value, message):
    with pytest.raises(ParameterException, match=message):
        make_node(**{name: value})
    result = make_node().set_parameters([Parameter(name, value=value)])[0]
    assert not result.successful
    assert result.reason


def test_only_live_parameters_change_while_configured(make_node):
    node = make_node()
    parameters.declare_cameras(node, RIG, {})
    node.configured = True
    assert node.set_parameters([Parameter("score_threshold", value=0.9)])[0].successful
    for name, value in (("model", "other"), ("cameras.CAM_BACK.image_topic", "/other")):
        result = node.set_parameters([Parameter(name, value=value)])[0]
        assert not result.successful
        assert "clean it up first" in result.reason


def test_the_rig_gives_defaults_and_parameters_override_them(make_node):
    node = make_node(cameras__CAM_BACK__image_topic="/rear/image", cameras__CAM_BACK__repeat_ms=120)
    parameters.declare_cameras(node, RIG, {})
    cameras = {camera.name: camera for camera in parameters.read_cameras(node, RIG)}
    assert cameras["CAM_FRONT"] == RIG.cameras[0]
    assert (cameras["CAM_BACK"].image_topic, cameras["CAM_BACK"].repeat_ms) == ("/rear/image", 120.0)


def test_what_is_no_parameter_stays_as_the_rig_has_it(make_node):
    node = make_node(cameras__CAM_BACK__image_topic="/rear/image")
    cameras = tuple(replace(camera, crop=(0, 1, 8, 6), model_camera="CAM_FRONT") for camera in RIG.cameras)
    parameters.declare_cameras(node, replace(RIG, cameras=cameras), None)
    read = parameters.read_cameras(node, replace(RIG, cameras=cameras))
    assert read == tuple(
        replace(camera, image_topic="/rear/image") if camera.name == "CAM_BACK" else camera for camera in cameras
    )


def test_what_somebody_changed_outlives_the_next_configuration(make_node):
    node = make_node(cameras__CAM_FRONT__image_topic="/of/the/file")
    declared = parameters.declare_cameras(node, RIG, {})
    name, front = "cameras.CAM_BACK.image_topic", RIG.cameras[0]
    for changed, topic in ((name, "/rear/image"), ("cameras.CAM_FRONT.image_topic", front.image_topic)):
        assert node.set_parameters([Parameter(changed, value=topic)])[0].successful
    other = replace(RIG, cameras=tuple(replace(camera, rectified=True) for camera in RIG.cameras))
    for _ in range(2):
        declared = parameters.declare_cameras(node, other, declared)
        cameras = {camera.name: camera for camera in parameters.read_cameras(node, other)}
        assert (cameras["CAM_BACK"].image_topic, cameras["CAM_BACK"].rectified) == ("/rear/image", True)
        assert cameras["CAM_FRONT"].image_topic == front.image_topic
    one = replace(other, cameras=other.cameras[:1])
    parameters.declare_cameras(node, one, declared)
    assert not node.has_parameter(name)


def test_a_configuration_that_failed_half_way_does_not_hinder_the_next(make_node):
    node = make_node(cameras__CAM_BACK__image_topic="not a topic")
    with pytest.raises(ParameterException, match="expected the name of a topic"):
        parameters.declare_cameras(node, RIG, {})
    assert parameters.declare_cameras(node, replace(RIG, cameras=RIG.cameras[:1]), {})


def test_whole_numbers_are_numbers(make_node):
    node = make_node(score_threshold=1, sync_tolerance_ms=40, cameras__CAM_BACK__exposure_offset_ms=3)
    parameters.declare_cameras(node, RIG, {})
    settings = parameters.read(node)
    assert (settings.score_threshold, settings.sync_tolerance_ms) == (1.0, 40.0)
    assert type(settings.score_threshold) is float
    assert parameters.read_cameras(node, RIG)[3].exposure_offset_ms == 3.0
    assert not node.set_parameters([Parameter("score_threshold", value=2)])[0].successful


def test_a_frame_with_a_slash_is_refused():
    with pytest.raises(ValueError, match=r"output_frame is '/map', expected .* without a leading slash: 'map'"):
        Settings(output_frame="/map")


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_topic": "not a topic"},
        {"camera_info_topic": ""},
        {"exposure_offset_ms": 5000.0},
        {"repeat_ms": -1.0},
        {"compressed": "yes"},
    ],
)
def test_wrong_camera_parameters_are_refused(make_node, wrong):
    ((what, value),) = wrong.items()
    node = make_node(**{f"cameras__CAM_BACK__{what}": value})
    with pytest.raises(ParameterException, match=what):
        parameters.declare_cameras(node, RIG, {})


def test_synchronizer_settings():
    config = Settings(sync_tolerance_ms=30.0).synchronizer(RIG)
    assert config.minimum_cameras == len(RIG.cameras)
    assert config.tolerance_ns == 30 * MILLISECOND_NS
    assert config.offsets_ns[1] == 8 * MILLISECOND_NS
    with pytest.raises(ValueError, match=r"minimum_cameras is 7, expected 1..6"):
        Settings(minimum_cameras=7).synchronizer(RIG)


def test_the_documentation_holds_the_table():
    table = parameters.parameter_table()
    assert table in (REPOSITORY / "docs" / "node.md").read_text(), f"docs/node.md should hold\n{table}"
    shown = [line for line in (REPOSITORY / "README.md").read_text().splitlines() if line in table.splitlines()]
    settings = [line for line in shown if line.startswith("| `")]
    assert len(settings) == 10, f"README.md should hold ten rows of the table in docs/node.md, holds\n{settings}"
