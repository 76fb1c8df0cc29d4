"""From described cameras to a rig, without messages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="needs rosbags: pip install '.[bags]'")

from bevformer_ros import geometry
from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.inference.image_plan import ImagePlan
from bevformer_ros.lens import PINHOLE, Lens
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.resources import config_file
from bevformer_ros.ros.rig_proposal import propose, yaml_text
from bevformer_ros.ros.rig_survey import FoundCamera, Survey

MODEL = load_yaml(ModelConfig, config_file("models", "demo"))
MS = 1_000_000
PERIOD_NS = 100 * MS


def camera(
    name, heading, fov=65.0, pitch=0.0, size=(1600, 900), offset_ms=0.0, period_ns=PERIOD_NS, position=(1.7, 0, 1.5)
):
    """Degrees."""
    forward = geometry.transform_from_rpy(position, (0.0, -np.radians(pitch), np.radians(heading)))
    optical = geometry.transform_from_rpy((0, 0, 0), (-np.pi / 2, 0.0, -np.pi / 2))
    focal = size[0] / 2 / np.tan(np.radians(fov) / 2)
    intrinsics = np.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1]])
    stamps = tuple(round(1e9 + offset_ms * MS) + period_ns * index for index in range(20))
    mount = forward @ optical
    return FoundCamera(name, f"/{name}", f"/{name}/info", True, False, size, intrinsics, PINHOLE, mount, stamps)


def fisheye(name, heading, fov, size=(1600, 1200)):
    focal = size[0] / np.radians(fov)
    intrinsics = np.array([[focal, 0, size[0] / 2 - 0.5], [0, focal, size[1] / 2], [0, 0, 1]])
    lens = Lens("equidistant", (0.0, 0.0, 0.0, 0.0))
    return replace(camera(name, heading, size=size), intrinsics=intrinsics, lens=lens)


def survey(*cameras, ground=None, left_out=()):
    return Survey(cameras, "base_link", "odom", ground, tuple(left_out))


def remarks_of(proposal, name):
    return " | ".join(next(camera.remarks for camera in proposal.cameras if camera.config.name == name))


@pytest.mark.parametrize(
    ("headings", "model_cameras"),
    [
        ({"one": 10}, {"one": "CAM_FRONT"}),
        ({"b": 180, "a": -3}, {"a": "CAM_FRONT", "b": "CAM_BACK"}),
        ({"l": 90, "r": -90}, {"l": "CAM_BACK_LEFT", "r": "CAM_BACK_RIGHT"}),
        (
            {"c0": 45, "c1": -45, "c2": 135, "c3": -135, "c4": 0, "c5": 180},
            dict(zip(("c4", "c1", "c0", "c5", "c2", "c3"), MODEL.cameras, strict=True)),
        ),
    ],
)  # fmt: skip
def test_each_camera_takes_the_embedding_of_the_nearest(headings, model_cameras):
    proposal = propose(survey(*(camera(name, heading) for name, heading in headings.items())), MODEL)
    assert list(proposal.rig.model_cameras.items()) == list(model_cameras.items())
    absent = [name for name in MODEL.cameras if name not in model_cameras.values()]
    assert proposal.remarks == ((f"nothing looks where demo has {', '.join(absent)}",) if absent else ())


def test_of_two_that_show_the_same_the_wider_is_taken_and_the_other_stands_as_a_comment():
    found = survey(camera("narrow", 2, fov=30), camera("wide", 0, fov=90), camera("side", 90), camera("rear", 140))
    proposal = propose(found, MODEL)
    assert list(proposal.rig.model_cameras) == ["wide", "side", "rear"]  # the last two look different ways
    assert "left out: wide shows the same and more" in remarks_of(proposal, "narrow")
    assert "CHECK: it looks 30° beside CAM_BACK_LEFT" in remarks_of(proposal, "rear")
    assert "  # - name: narrow\n" in yaml_text(proposal, "")


def test_two_equal_cameras_do_not_leave_each_other_out():
    assert len(propose(survey(camera("left", 0), camera("right", 0)), MODEL).rig.cameras) == 1


@pytest.mark.parametrize(
    ("size", "pitch", "crop"),
    [
        ((1600, 900), 0.0, None),
        ((800, 450), 0.0, None),
        ((1920, 960), 0.0, None),  # lower than the model's images: nothing to cut
        ((1600, 1200), 0.0, (0, 110, 1600, 1010)),  # the horizon, row 600, comes to row 490 of 900
        ((1600, 1200), -5.0, (0, 0, 1600, 900)),  # looking down: the image does not reach up as far as it should
        ((1600, 1200), 5.0, (0, 220, 1600, 1120)),
    ],
)
def test_the_crop_keeps_horizon_and_vertical_range(size, pitch, crop):
    (proposed,) = propose(survey(camera("front", 0, pitch=pitch, size=size)), MODEL).cameras
    found = proposed.config.crop
    assert found == crop or np.abs(np.subtract(found, crop)).max() <= 1
    if found is not None:
        plan = ImagePlan.for_size(MODEL.image, found[2] - found[0], found[3] - found[1])
        assert plan.size[1] == MODEL.image.height  # all rows of the network's input are filled


@pytest.mark.parametrize(
    ("offsets", "expected"), [((0.0, 8.0, -12.5), (0.0, 8.0, -12.5)), ((3.0, 3.0, 104.0), (0, 0, 1))]
)
def test_exposure_offsets_are_measured_against_the_reference(offsets, expected):
    cameras = (
        camera(name, heading, offset_ms=offset)
        for name, heading, offset in zip("abc", (0, 90, 180), offsets, strict=True)
    )
    rig = propose(survey(*cameras), MODEL).rig
    assert rig.reference_camera == "a"
    found = {camera.name: camera.exposure_offset_ms for camera in rig.cameras}
    assert tuple(found[name] for name in "abc") == pytest.approx(expected, abs=0.051)


def test_the_slowest_camera_gives_the_stamps():
    proposal = propose(survey(camera("front", 0), camera("rear", 180, period_ns=2 * PERIOD_NS)), MODEL)
    assert proposal.rig.reference_camera == "rear"
    assert "CHECK: its rate is not that of the reference camera rear" in remarks_of(proposal, "front")


def test_cameras_that_expose_alternately_are_pointed_out():
    proposal = propose(survey(camera("front", 0), camera("rear", 180, offset_ms=49.0)), MODEL)
    assert "CHECK: it exposes half a period from the reference camera" in remarks_of(proposal, "rear")


@pytest.mark.parametrize(
    ("of_tf", "of_user", "z", "asks"),
    [(None, None, 1.84, True), (-0.3, None, 1.54, False), (None, -0.5, 1.34, False), (-0.3, 0.0, 1.84, False)],
)
def test_the_bev_frame_stands_on_the_road(of_tf, of_user, z, asks):
    proposal = propose(survey(camera("front", 0), ground=of_tf), MODEL, of_user)
    assert proposal.rig.bev_frame.translation == pytest.approx((0.94, 0.0, z))
    assert any("--ground" in remark for remark in proposal.bev_frame_remarks) is asks


def test_without_a_camera_ahead_the_bev_frame_is_that_of_a_nuscenes_car():
    assert propose(survey(camera("rear", 180)), MODEL).rig.bev_frame.translation == (0.94, 0.0, 1.84)


def test_what_a_person_should_check():
    proposal = propose(
        survey(camera("eye", 0, fov=25.0, position=(1.7, 0, 0.2)), left_out=("/depth: no picture",)), MODEL
    )
    remarks = remarks_of(proposal, "eye")
    assert "field of view 25°" in remarks
    assert "things look 2.85 times as large" in remarks and "CHECK: that is far from what it has learned" in remarks
    assert "CHECK: no camera of a car is so high above ground" in remarks
    assert "left out: /depth: no picture" in proposal.remarks


@pytest.mark.parametrize(("fov", "shown", "larger"), [(190.0, 100.0, "0.53"), (80.0, 80.0, "0.75")])
def test_a_fisheye_gets_a_pinhole_in_its_place(fov, shown, larger):
    proposal = propose(survey(fisheye("eye", 0, fov)), MODEL)
    (config,) = proposal.rig.cameras
    assert config.field_of_view_deg == pytest.approx(shown, abs=0.1)
    assert config.crop == (0, 110, 1600, 1010)
    remarks = remarks_of(proposal, "eye")
    assert f"field of view {fov:.0f}°" in remarks
    assert f"a fisheye; the network gets a pinhole's image of {shown:g}° in its place" in remarks
    assert f"things look {larger} times as large" in remarks


@pytest.mark.parametrize(
    ("headings", "widths"),
    [
        ((0, 55, 110, 180, -110, -55), (65, 65, 80, 89, 80, 65)),  # nuScenes' own
        ((0, 90, 180, -90), (100, 100, 100, 100)),  # as wide as a pinhole may get
        ((0, 40, -40), (64.7, 100, 100)),
    ],
)
def test_pinholes_in_the_place_of_fisheyes_leave_no_gap(headings, widths):
    rig = propose(survey(*(fisheye(f"eye{heading}", heading, 190.0) for heading in headings)), MODEL).rig
    found = {camera.name: camera.field_of_view_deg for camera in rig.cameras}
    assert [found[f"eye{heading}"] for heading in headings] == pytest.approx(widths, abs=0.6)


def test_a_model_whose_cameras_do_not_say_where_they_look():
    with pytest.raises(ValueError, match="cameras A, B do not say where they look"):
        propose(survey(camera("front", 0)), replace(MODEL, cameras=("A", "CAM_FRONT", "B")))


def test_the_file_is_the_rig(tmp_path):
    cameras = [camera("front", 0, size=(1600, 1200)), camera("spare", 1, fov=20), camera("rear", 180, offset_ms=7.0)]
    proposal = propose(survey(*cameras), MODEL)
    text = yaml_text(proposal, "title")
    assert text.startswith("# title\n")
    (tmp_path / "rig.yaml").write_text(text)
    assert load_yaml(RigConfig, tmp_path / "rig.yaml") == proposal.rig
    uncommented = "\n".join(
        line.replace("# - ", "- ").replace("#   ", "  ") if line.startswith(("  # - ", "  #   ")) else line
        for line in text.splitlines()
    )
    (tmp_path / "rig.yaml").write_text(uncommented)
    assert len(load_yaml(RigConfig, tmp_path / "rig.yaml").cameras) == 3
