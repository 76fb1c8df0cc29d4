"""What is taken for a camera, for its CameraInfo, and for the frames of the car."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="needs rosbags: pip install '.[bags]'")

from bevformer_ros import geometry
from bevformer_ros.ros.conversions import (
    camera_info,
    header_of,
    image_to_message,
    jpeg_to_message,
    transform_to_message,
)
from bevformer_ros.ros.messages import TFMessage
from bevformer_ros.ros.rig_survey import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE, TRANSFORMS, RigSurvey

K = np.array([[80.0, 0.0, 80.0], [0.0, 80.0, 45.0], [0.0, 0.0, 1.0]])
JPEG = bytes.fromhex("ffd8ffc0000b08005a00a001011100ffd9")  # headers of 160 x 90 pixels, no content
MS = 1_000_000
BELOW = ("base_footprint", "base_link", 0.3, False)
ON_BASE = (("base_link", "front", 1.0, False),)


def info(survey, topic, frame):
    survey.note(topic, CAMERA_INFO, camera_info(header_of(1, frame), (90, 160), K))


def image(survey, topic, frame, stamp_ns=1, encoding="bgr8"):
    message = image_to_message(np.zeros((90, 160, 3), np.uint8), header_of(stamp_ns, frame))
    message.encoding = encoding
    survey.note(topic, IMAGE, message)


def jpeg(survey, topic, frame, stamp_ns=1):
    survey.note(topic, COMPRESSED_IMAGE, jpeg_to_message(JPEG, header_of(stamp_ns, frame)))


def link(survey, parent, child, height=0.0, moves=False):
    pose = geometry.transform_from_rpy((0.0, 0.0, height), (0.0, 0.0, 0.0))
    stamps = (0, 1000 * MS) if moves else (0,)
    for stamp in stamps:
        message = TFMessage(transforms=[transform_to_message(pose, parent, child, stamp)])
        survey.note("/tf" if moves else "/tf_static", TRANSFORMS, message)


def car(*frames):
    survey = RigSurvey()
    link(survey, "odom", "base_link", moves=True)
    for frame in frames:
        link(survey, "base_link", frame, 1.5)
    return survey


def test_nothing_at_all():
    with pytest.raises(ValueError, match="found no camera to make a rig of: no images at all"):
        RigSurvey().survey()


def test_a_camera_with_all_that_it_takes():
    survey = car("front_optical")
    info(survey, "/front/camera_info", "front_optical")
    for stamp in (10, 20, 30):
        image(survey, "/front/image_raw", "front_optical", stamp)
    found = survey.survey()
    assert (found.base_frame, found.fixed_frame, found.ground, found.left_out) == ("base_link", "odom", None, ())
    (camera,) = found.cameras
    assert (camera.name, camera.image_topic, camera.camera_info_topic) == (
        "front", "/front/image_raw", "/front/camera_info"
    )  # fmt: skip
    assert (camera.compressed, camera.rectified, camera.size, camera.stamps_ns) == (
        False,
        False,
        (160, 90),
        (10, 20, 30),
    )
    np.testing.assert_array_equal(camera.intrinsics, K)
    assert camera.base_from_camera[2, 3] == 1.5


def test_of_the_topics_of_one_camera_that_nearest_to_the_sensor():
    survey = car("front")
    info(survey, "/front/camera_info", "front")
    jpeg(survey, "/front/image_raw/compressed", "front")
    for topic in ("/front/image_rect", "/front/image_raw", "/front/image_mono"):
        image(survey, topic, "front", encoding="mono8" if "mono" in topic else "bgr8")
    image(survey, "/front/depth", "front", encoding="16UC1")
    found = survey.survey()
    assert [camera.image_topic for camera in found.cameras] == ["/front/image_raw"]
    assert set(found.left_out) == {
        "/front/depth: 16UC1 is no picture",
        "/front/image_rect: the same camera as /front/image_raw",
        "/front/image_mono: the same camera as /front/image_raw",
        "/front/image_raw/compressed: the same camera as /front/image_raw",
    }


def test_rectified_and_compressed_where_there_is_nothing_else():
    survey = car("front")
    info(survey, "/front/camera_info", "front")
    jpeg(survey, "/front/image_rect_color/compressed", "front")
    (camera,) = survey.survey().cameras
    assert camera.rectified and camera.compressed


def test_camera_info_elsewhere_is_found_by_its_frame():
    survey = car("front", "rear")
    info(survey, "/calibration/front", "front")
    image(survey, "/images/front", "front")
    image(survey, "/images/rear", "rear")
    found = survey.survey()
    assert [camera.camera_info_topic for camera in found.cameras] == ["/calibration/front"]
    assert found.left_out == ("/images/rear: no CameraInfo on /images/camera_info, or with its frame_id",)


def test_bad_messages_are_passed_over(caplog):
    survey = car("front", "rear")
    for name in ("front", "rear"):
        info(survey, f"/{name}/camera_info", name)
    survey.note("/front/image_raw", COMPRESSED_IMAGE, jpeg_to_message(JPEG[:9], header_of(1500 * MS, "front")))
    for stamp in (2, 3):
        jpeg(survey, "/front/image_raw", "front", stamp)
        survey.note("/rear/image_raw", COMPRESSED_IMAGE, jpeg_to_message(b"", header_of(stamp, "rear")))
    found = survey.survey()
    assert [(camera.name, camera.stamps_ns) for camera in found.cameras] == [("front", (2, 3))]
    front, rear = found.left_out
    assert front == "/front/image_raw: messages that could not be used: 1 (JPEG of 9 bytes ends early)"
    assert rear.startswith("/rear/image_raw: messages that could not be used: 2 (compressed image of 0 bytes")
    first, _ = (record.getMessage() for record in caplog.records)
    assert first == (
        "a message on /front/image_raw of stamp 1.500, and any like it, is left out: JPEG of 9 bytes ends early"
    )


def test_a_camera_info_without_calibration_is_passed_over(caplog):
    survey = car("front")
    for k in (np.zeros((3, 3)), np.full((3, 3), np.nan), K, np.zeros((3, 3))):
        survey.note("/front/camera_info", CAMERA_INFO, camera_info(header_of(1, "front"), (90, 160), k))
    image(survey, "/front/image_raw", "front")
    found = survey.survey()
    np.testing.assert_array_equal(found.cameras[0].intrinsics, K)
    assert len(found.left_out) == 1 and "could not be used: 3" in found.left_out[0]
    assert len(caplog.records) == 1


def test_names_are_as_long_as_it_takes_to_tell_cameras_apart():
    survey = car("a", "b")
    for side, frame in (("left", "a"), ("right", "b")):
        info(survey, f"/{side}/camera/camera_info", frame)
        image(survey, f"/{side}/camera/image_raw", frame)
    assert [camera.name for camera in survey.survey().cameras] == ["left_camera", "right_camera"]


def test_a_camera_that_tf_does_not_know_is_left_out_and_an_uncalibrated_one():
    survey = car("front", "blind")
    for name in ("front", "lost", "blind"):
        info(survey, f"/{name}/camera_info", name)
        image(survey, f"/{name}/image_raw", name)
    survey._infos["/blind/camera_info"].k = np.zeros(9)
    found = survey.survey()
    assert [camera.name for camera in found.cameras] == ["front"]
    lost, blind = found.left_out
    assert lost == "/lost/image_raw: tf has no frame 'lost', which is the frame_id of its images"
    assert "calibrate the camera" in blind


@pytest.mark.parametrize(
    ("links", "base", "fixed", "ground"),
    [
        ([("map", "odom", 0, True), ("odom", "base_link", 0, True), *ON_BASE], "base_link", "odom", None),
        ([("odom", "base_footprint", 0, True), BELOW, *ON_BASE], "base_link", "odom", -0.3),
        ([("local", "car", 0, True), ("car", "rack", 1, False), ("rack", "front", 1, False)], "car", "local", None),
        ([("map", "base_link", 0, False), *ON_BASE], "base_link", "map", None),
    ],
)  # fmt: skip
def test_frames(links, base, fixed, ground):
    survey = RigSurvey()
    for parent, child, height, moves in links:
        link(survey, parent, child, height, moves)
    info(survey, "/front/camera_info", "front")
    image(survey, "/front/image_raw", "front")
    found = survey.survey()
    assert (found.base_frame, found.fixed_frame) == (base, fixed)
    assert found.ground == (None if ground is None else pytest.approx(ground))


@pytest.mark.parametrize(
    ("parent", "message"),
    [
        ("base_link", "tf has no frame above base_link, in which the car moves"),
        ("rack", "tf has no frame above front that"),
    ],
)
def test_a_car_that_moves_in_nothing(parent, message):
    survey = RigSurvey()
    link(survey, parent, "front", 1.5)
    info(survey, "/front/camera_info", "front")
    image(survey, "/front/image_raw", "front")
    with pytest.raises(ValueError, match=message):
        survey.survey()
    assert survey.survey(base_frame=parent, fixed_frame="odom").fixed_frame == "odom"
