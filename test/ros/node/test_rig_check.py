from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sensor_msgs.msg", reason="needs the ROS environment that `make test` makes")

from bevformer_ros import geometry
from bevformer_ros.ros.node.rig_check import description, suspicions, unseen_share, view_of
from bevformer_ros.types import CameraImage, SurroundFrame

RANGE = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)
BASE_FROM_BEV = geometry.transform_from_rpy((0.94, 0.0, 1.84), (0.0, 0.0, -np.pi / 2))
HEADINGS = {
    "CAM_FRONT": 0,
    "CAM_FRONT_RIGHT": -55,
    "CAM_FRONT_LEFT": 55,
    "CAM_BACK": 180,
    "CAM_BACK_LEFT": 110,
    "CAM_BACK_RIGHT": -110,
}
FRAMES = {name: name.lower() for name in HEADINGS}


def camera(name, heading, pitch=0.0, base_from_bev=BASE_FROM_BEV, optical=True):
    """Degrees; 90 of field of view."""
    roll_pitch_yaw = (0.0, -np.radians(pitch), np.radians(heading))
    base_from_camera = geometry.transform_from_rpy((1.0, 0.0, 1.6), roll_pitch_yaw)
    if optical:
        base_from_camera = base_from_camera @ geometry.transform_from_rpy((0, 0, 0), (-np.pi / 2, 0.0, -np.pi / 2))
    k = np.array([[80.0, 0.0, 80.0], [0.0, 80.0, 45.0], [0.0, 0.0, 1.0]])
    image = np.zeros((90, 160, 3), np.uint8)
    return CameraImage(name, 0, image, k, geometry.invert(base_from_camera) @ base_from_bev)


def frame_of(*cameras):
    return SurroundFrame(0, cameras, np.eye(4))


def surround(**changes):
    return frame_of(*(camera(name, heading, **changes) for name, heading in HEADINGS.items()))


def test_a_camera_alone_among_missing_ones_is_described():
    frame = frame_of(None, camera("CAM_BACK", 180))
    assert "CAM_BACK heading" in description(frame, RANGE)
    assert suspicions(frame, BASE_FROM_BEV, FRAMES) == []


@pytest.mark.parametrize(("heading", "pitch"), [(0, 0), (-55, -10), (110, 45)])
def test_view(heading, pitch):
    view = view_of(camera("CAM", heading, pitch))
    assert (view.heading, view.pitch, view.fov) == (
        pytest.approx(heading, abs=1e-6),
        pytest.approx(pitch),
        pytest.approx(90),
    )


def test_a_sensible_rig():
    assert suspicions(surround(), BASE_FROM_BEV, FRAMES) == []
    assert unseen_share(surround(), RANGE) < 0.1
    assert unseen_share(frame_of(camera("CAM_FRONT", 0)), RANGE) == pytest.approx(0.75, abs=0.05)


def test_a_frame_that_is_not_the_optical_one():
    found = suspicions(surround(optical=False), BASE_FROM_BEV, FRAMES)
    assert {(problem.source, problem.code) for problem in found} == {(name, "tilted") for name in HEADINGS}
    assert "looks up by 90°: is 'cam_front' the optical frame" in found[0].text


def test_a_bev_frame_without_its_yaw():
    base_from_bev = geometry.transform_from_rpy((0.94, 0.0, 1.84), (0.0, 0.0, 0.0))
    (problem,) = suspicions(surround(base_from_bev=base_from_bev), base_from_bev, FRAMES)
    assert (problem.source, problem.code) == ("", "bev_frame")
    assert "-90° to the left of the BEV frame's +y" in problem.text and "-1.5708" in problem.text


def test_exchanged_cameras():
    frame = frame_of(camera("CAM_FRONT", 180), camera("CAM_BACK", 0), camera("CAM_FRONT_LEFT", 55), camera("roof", 0))
    found = suspicions(frame, BASE_FROM_BEV, {**FRAMES, "roof": "roof"})
    assert [(problem.source, problem.code) for problem in found] == [("CAM_FRONT", "heading"), ("CAM_BACK", "heading")]
