import math
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from bevformer_ros.config import RigConfig, from_dict, load_yaml

CONFIG = Path(__file__).parent.parent / "config"
CAMERA = {"name": "CAM_FRONT", "image_topic": "/image", "camera_info_topic": "/info"}
RIG = {
    "cameras": [CAMERA],
    "reference_camera": "CAM_FRONT",
    "base_frame": "base_link",
    "fixed_frame": "odom",
    "bev_frame": {"translation": [0, 0, 1.8], "roll_pitch_yaw": [0, 0, -1.57]},
}


@pytest.mark.parametrize("path", sorted((CONFIG / "rigs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_rig_loads(path):
    assert load_yaml(RigConfig, path).cameras


def test_whole_numbers_are_accepted_where_a_float_is_meant():
    assert from_dict(RigConfig, RIG).bev_frame.translation == (0.0, 0.0, 1.8)


def test_a_camera_takes_the_embedding_that_it_names_or_else_that_of_its_own_name():
    beside = {"name": "roof", "image_topic": "/roof", "camera_info_topic": "/roof_info", "model_camera": "CAM_FRONT"}
    rig = from_dict(RigConfig, RIG | {"cameras": [beside, CAMERA]})
    assert list(rig.model_cameras.items()) == [("roof", "CAM_FRONT"), ("CAM_FRONT", "CAM_FRONT")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "red"}, "RigConfig: unknown key 'colour'; known are cameras, "),
        ({"cameras": []}, "cameras is empty"),
        ({"cameras": [CAMERA, CAMERA]}, "CAM_FRONT more than once"),
        ({"cameras": CAMERA}, "RigConfig.cameras: expected a list"),
        ({"cameras": [{"name": "CAM_FRONT"}]}, r"RigConfig.cameras\[0\]: missing key 'image_topic'"),
        ({"cameras": [CAMERA | {"compressed": "yes"}]}, r"cameras\[0\].compressed: expected bool, got 'yes'"),
        ({"cameras": [CAMERA | {"repeat_ms": -1}]}, "repeat_ms of CAM_FRONT is -1.0, expected 0 to 1000"),
        ({"cameras": [CAMERA | {"crop": [5, 0, 5, 9]}]}, r"crop of CAM_FRONT is \(5, 0, 5, 9\), expected left, top"),
        ({"cameras": [CAMERA | {"masks": [[[0, 0], [5, 5]]]}]}, r"masks of CAM_FRONT holds .*at least three corners"),
        ({"cameras": [CAMERA | {"masks": [[[0, 0], [5, 5], [-1, 9]]]}]}, r"masks of CAM_FRONT holds .*in the image"),
        (
            {"cameras": [CAMERA | {"field_of_view_deg": 180}]},
            "field_of_view_deg of CAM_FRONT is 180.0, expected",
        ),
        ({"reference_camera": "CAM_TOP"}, "reference_camera 'CAM_TOP' is not one of CAM_FRONT"),
        ({"fixed_frame": "base_link"}, "the car must move in the world"),
        ({"bev_frame": {"translation": [0, 0], "roll_pitch_yaw": [0, 0, 0]}}, "expected 3 values, got 2"),
        (
            {"bev_frame": {"translation": [0, 0, math.nan], "roll_pitch_yaw": [0, 0, 0]}},
            "translation is .*nan.*, expected finite numbers",
        ),
        ({"bev_frame": RIG["bev_frame"] | {"parent": ""}}, "bev_frame.parent is ''"),
        ({"base_frame": ""}, "base_frame is '', expected the name of a tf frame"),
        ({"fixed_frame": "/odom"}, "fixed_frame is '/odom', expected .* without a leading slash"),
        ({"cameras": [CAMERA, CAMERA | {"name": "CAM_BACK"}]}, "/image, which is image_topic of CAM_FRONT already"),
        ({"cameras": [CAMERA | {"camera_info_topic": "/image"}]}, "camera_info_topic of CAM_FRONT is /image, which is"),
        ({"cameras": [CAMERA | {"image_topic": ""}]}, "image_topic of CAM_FRONT is empty"),
    ],
)
def test_a_wrong_rig_is_refused_with_the_place_and_the_value(changes, message):
    with pytest.raises(ValueError, match=message):
        from_dict(RigConfig, RIG | changes)


@dataclass(frozen=True)
class Circle:
    radius: float = 1.0


@dataclass(frozen=True)
class Rectangle:
    width: float
    height: float


@dataclass(frozen=True)
class Drawing:
    shape: Circle | Rectangle | None = None


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (None, None),
        ({}, Circle()),
        ({"radius": 2}, Circle(2.0)),
        ({"height": 2, "width": 1}, Rectangle(1.0, 2.0)),
    ],
)
def test_the_keys_tell_which_kind_is_meant(shape, expected):
    assert from_dict(Drawing, {"shape": shape}) == Drawing(expected)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"radius": 1, "width": 1}, r"Drawing.shape: expected keys of one of Circle .*, got 'radius', 'width'"),
        ({"colour": 1}, r"of Circle \(radius\) or Rectangle \(width, height\), got 'colour'"),
        ({"width": 1}, "Drawing.shape: missing key 'height'"),
        (3, "Drawing.shape: expected a mapping, got 3"),
    ],
)
def test_no_kind_fits(shape, message):
    with pytest.raises(ValueError, match=message):
        from_dict(Drawing, {"shape": shape})


def test_errors_name_the_file(tmp_path):
    (tmp_path / "rig.yaml").write_text("cameras: [")
    with pytest.raises(ValueError, match=r"rig\.yaml: not valid YAML"):
        load_yaml(RigConfig, tmp_path / "rig.yaml")
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(ValueError, match=r"empty\.yaml: RigConfig: expected a mapping, got None"):
        load_yaml(RigConfig, tmp_path / "empty.yaml")


def test_a_bomb_of_aliases_is_refused_at_once(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 12)]
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    begin = time.monotonic()
    with pytest.raises(ValueError, match=r"bomb\.yaml: not valid YAML: .*a0 is an alias; write the values out"):
        load_yaml(RigConfig, tmp_path / "bomb.yaml")
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 10_000, "not valid YAML"),
        (b"x" * (1 << 20) + b"x", "larger than 1048576 bytes"),
        (b"\xff\xfe\x00", "not valid YAML"),
        (b"{1: a, b: c}", "unknown key 1, 'b'"),
    ],
    ids=["nested", "large", "binary", "numbers for keys"],
)
def test_files_that_are_no_configuration(tmp_path, content, message):
    (tmp_path / "rig.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_yaml(RigConfig, tmp_path / "rig.yaml")
