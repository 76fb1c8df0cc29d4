"""The health model as tables: what happened, what is said. Time is what the test says."""

from __future__ import annotations

import pytest

pytest.importorskip("sensor_msgs.msg", reason="needs the ROS environment that `make test` makes")

from support import REPOSITORY

from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.inference.frame_history import HistoryStatus
from bevformer_ros.ros.node.camera_health import CameraFault, Level, Problem
from bevformer_ros.ros.node.health import HealthLimits, HealthModel, SetOutcome

RIG = load_yaml(RigConfig, REPOSITORY / "config" / "rigs" / "nuscenes.yaml")
NAMES = [camera.name for camera in RIG.cameras]
OFFSETS = {camera.name: round(camera.exposure_offset_ms * 1e6) for camera in RIG.cameras}
SECOND = 1_000_000_000
BACK = "CAM_BACK"


class Drive:
    """Ten sets a second, until told otherwise."""

    def __init__(self, trained=True, maximum_age_s=1.0):
        self.now_s = 100.0
        self.model = HealthModel(RIG, HealthLimits(1.5, maximum_age_s), trained, self.now_s)
        self.resets = {}

    def images(self, stamp_s=lambda name, now_s: now_s, missing=()):
        for name in NAMES:
            if name not in missing:
                self.model.note_image(name, round(stamp_s(name, self.now_s) * SECOND) + OFFSETS[name], self.now_s)

    def set(self, missing=(), reason="", age_s=0.1):
        history = None if reason else HistoryStatus(1, 1, 0, dict(self.resets))
        self.model.note_set(SetOutcome(self.now_s, reason, tuple(missing), None if reason else age_s), history)

    def go(self, seconds, missing=(), reason="", period_s=0.1, age_s=0.1, **images):
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s += period_s
            self.images(missing=missing, **images)
            if not reason:
                self.model.note_assembled([name for name in NAMES if name not in missing], [], self.now_s)
            self.set(missing, reason, age_s)

    def assess(self, **about):
        return self.model.assess(self.now_s, about.pop("topic_faults", {}), **about)


def codes(assessment):
    return {(problem.source, problem.code) for problem in assessment.problems}


def test_nothing_has_happened_yet():
    drive = Drive()
    assert drive.assess().problems == ()
    assert drive.assess().level == Level.OK
    drive.now_s += 2
    assessment = drive.assess()
    assert assessment.level == Level.ERROR
    assert codes(assessment) == {("", "no_detection"), *((name, "no_images") for name in NAMES)}


def test_all_is_well():
    drive = Drive()
    drive.go(5)
    assessment = drive.assess()
    assert assessment.problems == ()
    assert assessment.values[""]["rate_hz"] == assessment.values[""]["camera_rate_hz"] == "10.0"
    assert assessment.values[BACK]["stamps"] == "rising"
    assert assessment.values[BACK]["transform"] == "ok"


@pytest.mark.parametrize("period_s", [0.1, 2.0, 7.0])
def test_a_slow_rig_is_not_silent_between_two_sets(period_s):
    drive = Drive()
    drive.go(10 * period_s, period_s=period_s)
    drive.now_s += 0.9 * period_s
    assert codes(drive.assess()) == set()
    assert float(drive.assess().values[""]["rate_hz"]) == pytest.approx(1 / period_s, abs=0.05)


def test_a_missing_camera_is_a_warning_while_the_others_suffice():
    drive = Drive()
    drive.go(3)
    drive.go(1.3, missing=[BACK])
    assessment = drive.assess()
    assert assessment.level == Level.WARN
    assert assessment.level_of(BACK) == Level.ERROR
    assert codes(assessment) == {(BACK, "no_images"), ("", "fewer_cameras")}
    assert "5 of 6 cameras, without CAM_BACK" in str(assessment.problems)
    assert "/cam_back/image_raw (cameras.CAM_BACK.image_topic)" in str(assessment.problems[0])
    drive.go(2.5)
    assert drive.assess().problems == ()


def test_a_missing_camera_is_an_error_where_all_are_wanted():
    drive = Drive()
    drive.go(3)
    drive.go(1.8, missing=[BACK], reason="incomplete")
    assessment = drive.assess()
    assert assessment.level == Level.ERROR
    assert "no images from CAM_BACK" in str(assessment.problems[0])
    assert "minimum_cameras" in str(assessment.problems)


@pytest.mark.parametrize(
    ("stamp_s", "code", "text"),
    [
        (lambda name, now: 101.0 if name == BACK else now, "frozen", "have the stamp 101.025 s"),
        (lambda name, now: -0.025 if name == BACK else now, "unstamped", "stamp 0"),
        (lambda name, now: now + 3600 if name == BACK else now, "unmatched", "3600.00 s ahead of"),
        (lambda name, now: now - 0.25 if name == BACK else now, "unmatched", "0.25 s behind"),
    ],
)
def test_stamps_of_one_camera(stamp_s, code, text):
    drive = Drive()
    drive.go(3)
    for _ in range(20):
        drive.now_s += 0.1
        drive.images(stamp_s)
        drive.model.note_assembled([name for name in NAMES if name != BACK], [], drive.now_s)
        drive.set(missing=[BACK])
    assessment = drive.assess()
    assert codes(assessment) == {(BACK, code), ("", "fewer_cameras")}
    assert text in str(assessment.problems[0])


@pytest.mark.parametrize("stamp_s", [lambda name, now: 101.0, lambda name, now: -OFFSETS[name] / SECOND])
def test_frozen_stamps_of_all_are_an_error(stamp_s):
    drive = Drive()
    drive.go(3)
    for _ in range(20):
        drive.now_s += 0.1
        drive.images(stamp_s)
    assessment = drive.assess()
    assert assessment.level == Level.ERROR
    assert "CAM_FRONT, whose stamps do not advance" in str(assessment.problems[0])


def test_a_fault_stays_until_the_camera_is_used_again():
    drive = Drive()
    drive.go(3)
    fault = CameraFault(BACK, "undecodable", "JPEG of 7 bytes ends early")
    drive.model.note_assembled([name for name in NAMES if name != BACK], [fault], drive.now_s)
    assessment = drive.assess()
    assert codes(assessment) == {(BACK, "undecodable")}
    assert assessment.values[BACK]["decoding"] == "undecodable"
    assert "JPEG of 7 bytes ends early" in str(assessment.problems[0])
    drive.go(1.2)
    assert drive.assess().problems == ()


def test_a_set_that_no_camera_is_to_blame_for_tells_why():
    drive = Drive()
    drive.go(1)
    for _ in range(20):
        drive.now_s += 0.1
        drive.images()
        detail = "tf has no frame 'odom'"
        drive.model.note_set(SetOutcome(drive.now_s, "no_transform", (), None, detail), None)
    assessment = drive.assess()
    assert codes(assessment) == {("", "no_detection"), ("", "sets_dropped")}
    assert all("20 no_transform; tf has no frame 'odom'" in str(problem) for problem in assessment.problems)


def test_a_fault_in_every_second_image_does_not_flicker():
    drive = Drive()
    drive.go(3)
    fault = CameraFault(BACK, "undecodable", "image holds 5 bytes")
    for _ in range(10):
        drive.model.note_assembled([name for name in NAMES if name != BACK], [fault], drive.now_s)
        drive.go(0.1)
        assert (BACK, "undecodable") in codes(drive.assess())


def test_the_graph_explains_silence_and_only_silence():
    drive = Drive()
    faults = {"/cam_back/image_raw": "nobody publishes /cam_back/image_raw"}
    drive.go(1)
    assert drive.assess(topic_faults=faults).problems == ()
    drive.go(2, missing=[BACK], reason="incomplete")
    assert (BACK, "topic") in codes(drive.assess(topic_faults=faults))
    assert drive.model.mute_topics(drive.now_s) == [(BACK, "/cam_back/image_raw")]


def test_the_graph_explains_missing_camera_infos():
    drive = Drive()
    drive.go(1)
    drive.model.note_assembled([], [CameraFault(BACK, "no_camera_info", "no CameraInfo")], drive.now_s)
    assert drive.model.mute_topics(drive.now_s) == [(BACK, "/cam_back/camera_info")]
    (problem,) = drive.assess(topic_faults={"/cam_back/camera_info": "nobody publishes it"}).problems
    assert problem.code == "no_camera_info" and "nobody publishes it" in problem.text


@pytest.mark.parametrize("reason", ["unsubscribed", "rate_limit"])
def test_sets_that_are_skipped_by_wish_are_no_fault(reason):
    drive = Drive()
    drive.go(1)
    drive.go(10, reason=reason)
    assert drive.assess().problems == ()
    drive.now_s += 2
    drive.images()
    assert codes(drive.assess()) == {("", "no_detection")}, "sets that stop coming are one"


def test_a_network_that_never_ends_is_named():
    drive = Drive()
    drive.go(3, reason="superseded")
    drive.model.note_begun(drive.now_s - 3)
    text = str(drive.assess().problems[0])
    assert text.startswith("nothing detected for 3.")
    assert "the network has worked on one set for 3.0 s" in text
    assert "smaller model" in text


def test_a_paused_bag_is_stale():
    drive = Drive()
    drive.go(3)
    drive.now_s += 5
    assert drive.assess(clock_stands=True).level == Level.STALE
    assert drive.assess().level == Level.ERROR


@pytest.mark.parametrize(
    ("age_s", "code"), [(0.9, None), (1.1, "age"), (-2.0, "clock"), (1e9, "clock"), (-1e9, "clock")]
)
def test_age_of_boxes(age_s, code):
    drive = Drive()
    drive.go(3, age_s=age_s)
    assert codes(drive.assess()) == ({("", code)} if code else set())


def test_a_history_that_never_rests_names_cause_and_parameter():
    drive = Drive()
    for count in range(5):
        drive.resets = {"calibration_change": count, "request": 7 * count}
        drive.go(1)
    (problem,) = drive.assess().problems
    assert problem.code == "restless_history"
    assert "4 calibration_change" in problem.text and "history_calibration_tolerance" in problem.text
    drive.go(6)
    assert drive.assess().problems == ()


def test_untrained_weights_and_suspicions_are_warnings():
    drive = Drive(trained=False)
    drive.go(3)
    drive.model.note_suspicions([Problem(BACK, "tilted", Level.WARN, "looks at the sky")])
    assessment = drive.assess()
    assert codes(assessment) == {("", "untrained"), (BACK, "tilted")}
    assert assessment.level == Level.WARN


def test_sets_that_a_gpu_should_have_decoded_are_counted():
    drive = Drive()
    drive.go(5)
    assert "sets_decoded_on_cpu" not in drive.assess().values[""]
    drive.model.note_decoded_on_cpu(7)
    assert drive.assess().values[""]["sets_decoded_on_cpu"] == "7"
