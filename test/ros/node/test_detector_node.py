"""The node as users run it: its own process, real DDS."""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import replace

import pytest

pytest.importorskip("vision_msgs.msg", reason="needs the ROS environment that `make test` makes")

import torch
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import ReliabilityPolicy
from rig_publisher import PERIOD, START, START_TIMEOUT_S, DetectorListener, RigPublisher
from support import REPOSITORY, SMALLEST, detector_command

from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.datasets.keyframe import load_keyframe
from bevformer_ros.model.checkpoint import save_checkpoint
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.resources import DDS_PROFILE_VARIABLE
from bevformer_ros.ros.conversions import stamp_to_ns
from bevformer_ros.types import SECOND_NS

pytestmark = pytest.mark.integration

RIG = load_yaml(RigConfig, REPOSITORY / "config" / "rigs" / "nuscenes.yaml")


def counts(entries):
    return Counter({entry.reason: entry.count for entry in entries})


@pytest.fixture
def start_detector(start_process):
    """start_detector(parameter=value, ...): the node as a process; so small a network gains nothing from threads."""
    return lambda **values: start_process(detector_command(**values), OMP_NUM_THREADS="1")


def test_a_hundred_sets_at_ten_hertz(start_detector):
    """None lost, and what comes out is consistent. Where the machine cannot keep up, the car slows down."""
    node = start_detector()
    with RigPublisher(RIG, outputs=["detections", "kinematics", "markers", "status"]) as rig:
        first = rig.warm_up()
        stamps = []
        begin = time.monotonic()
        for index in range(100):
            stamps.append(rig.publish_next())
            rig.wait_for("status", index + 1)
            time.sleep(max(0.0, begin + (index + 1) / 10 - time.monotonic()))  # the pace is what is tested
        print(f"100 sets in {time.monotonic() - begin:.1f} s")
        detections, kinematics, markers = (rig.wait_for(name, 100) for name in ("detections", "kinematics", "markers"))
        last, diagnostics = rig.received["status"][-1], rig.wait_for("diagnostics", 10)
    assert last.sets_processed - first.sets_processed == 100
    assert counts(last.sets_dropped) == counts(first.sets_dropped)
    assert counts(last.images_dropped) == counts(first.images_dropped)
    assert [stamp_to_ns(entry.header.stamp) for entry in detections] == stamps
    for boxes, extra, marks in zip(detections, kinematics, markers, strict=True):
        assert boxes.header.frame_id == "base_link"
        assert extra.header == boxes.header
        assert 0 < len(boxes.detections) == len(extra.detections)
        assert [entry.id for entry in boxes.detections] == [entry.id for entry in extra.detections]
        assert marks.markers[-1].header == boxes.header
    assert not last.trained_weights
    assert last.model == "smallest"
    assert list(last.cameras_used) == [camera.name for camera in RIG.cameras]
    assert last.skew_ms == pytest.approx(43.0)
    assert [entry.stage for entry in last.latencies][:3] == ["queue", "decode_images", "wait_for_transforms"]
    assert last.total_latency_ms > 0
    assert (last.history_depth, last.history_slots) == (1, 1)
    assert all(entry.status[0].level == DiagnosticStatus.WARN for entry in diagnostics[1:-2])
    assert "UNTRAINED" in node.output
    assert DDS_PROFILE_VARIABLE not in node.output
    assert node.interrupt() == 0


def test_lifecycle(start_detector):
    node = start_detector(autostart="false")
    with RigPublisher(RIG, outputs=["detections", "status"]) as rig:
        node.wait_for_output("waiting for a lifecycle manager", START_TIMEOUT_S)
        assert rig.state() == "unconfigured"
        assert rig.change_state(Transition.TRANSITION_CONFIGURE)
        assert not rig.reset().success
        for _ in range(2):
            assert rig.change_state(Transition.TRANSITION_ACTIVATE)
            assert rig.state() == "active"
            processed = rig.warm_up().sets_processed
            assert processed < 20  # counted since activation
            rig.publish_next()
            assert rig.wait_for("status", 1)[0].sets_processed == processed + 1
            assert rig.change_state(Transition.TRANSITION_DEACTIVATE)
            assert rig.state() == "inactive"
        assert rig.change_state(Transition.TRANSITION_CLEANUP)
        model = Parameter("model", value="no_such_model").to_parameter_msg()
        request = SetParameters.Request(parameters=[model])
        assert rig.call(SetParameters, "/detector/set_parameters", request).results[0].successful
        assert not rig.change_state(Transition.TRANSITION_CONFIGURE)
        node.wait_for_output("cannot configure: 'no_such_model' is neither a path")
        assert rig.state() == "unconfigured"
        assert rig.change_state(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
    assert node.interrupt() == 0


def test_parameters_of_cameras_change_between_configurations(start_detector):
    start_detector(autostart="false")
    front = Parameter("cameras.CAM_FRONT.image_topic", value="/front/image").to_parameter_msg()
    with DetectorListener(outputs=[]) as listener:

        def set_front():
            request = SetParameters.Request(parameters=[front])
            return listener.call(SetParameters, "/detector/set_parameters", request).results[0]

        assert listener.change_state(Transition.TRANSITION_CONFIGURE)
        assert "clean it up first" in set_front().reason
        assert listener.change_state(Transition.TRANSITION_CLEANUP)
        assert set_front().successful
        assert listener.change_state(Transition.TRANSITION_CONFIGURE)
        request = GetParameters.Request(names=[front.name])
        (value,) = listener.call(GetParameters, "/detector/get_parameters", request).values
        assert value.string_value == "/front/image"


def test_an_interrupt_while_images_come_ends_cleanly(start_detector):
    node = start_detector()
    with RigPublisher(RIG, outputs=["detections", "status"]) as rig:
        rig.warm_up()
        for index in range(20):
            rig.publish_next(missing=["CAM_BACK"] if index % 2 else [])
        rig.wait_for("status", 1)
        assert node.interrupt() == 0
    assert "Traceback" not in node.output


def test_reset_request_bag_loop_and_missing_camera(start_detector):
    start_detector(use_sim_time="true", minimum_cameras=5)
    with RigPublisher(RIG, outputs=["detections", "status"]) as rig:
        first = rig.warm_up(with_clock=True)

        def play(count):
            """The status of the last of so many sets."""
            for _ in range(count):
                before = len(rig.received["status"])
                rig.publish_clock(rig.now_ns)
                rig.publish_next()
                rig.wait_for("status", before + 1)
            return rig.received["status"][-1]

        status = play(6)
        assert (status.history_depth, status.sets_processed) == (1, first.sets_processed + 6)
        resets = counts(status.history_resets)

        assert rig.reset().success
        status = play(1)
        assert status.history_depth == 0
        assert counts(status.history_resets) - resets == {"request": 1}
        resets = counts(status.history_resets)

        rig.now_ns = START  # the bag starts again
        status = play(3)
        assert sum((counts(status.history_resets) - resets).values()) == 1
        assert status.sets_processed == first.sets_processed + 10
        assert counts(status.sets_dropped) == counts(first.sets_dropped)
        assert stamp_to_ns(rig.received["detections"][-1].header.stamp) == START + 2 * PERIOD

        before = len(rig.received["status"])
        stamp_ns = rig.publish_next(missing=["CAM_BACK_LEFT"])
        for step in range(100):
            if len(rig.received["status"]) > before:
                break
            rig.publish_clock(stamp_ns + step * SECOND_NS // 50)
            time.sleep(0.02)  # the bag's time passes until the set is given up on
        status = rig.wait_for("status", before + 1)[-1]
        assert list(status.cameras_missing) == ["CAM_BACK_LEFT"]
        assert status.sets_processed == first.sets_processed + 11


def test_a_set_that_cannot_be_used_is_counted_and_the_node_lives_on(start_detector):
    node = start_detector()
    with RigPublisher(RIG, outputs=["detections", "status"]) as rig:
        first = rig.warm_up()
        rig.info_k = [0.0] * 9
        rig.publish_next()
        status = rig.wait_for("status", 1)[-1]
        assert counts(status.sets_dropped) - counts(first.sets_dropped) == {"uncalibrated": 1}
        node.wait_for_output("calibrate the camera")
        rig.info_k = None
        rig.publish_next()
        assert rig.wait_for("status", 2)[-1].sets_processed == first.sets_processed + 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"score_threshold": 1.5}, "score_threshold"),
        ({"rig": "no_such_rig"}, "cannot configure: 'no_such_rig' is neither a path"),
        ({"device": "cuda:99"}, "cannot configure: device is cuda:99, but"),
        ({"cameras.CAM_BACK.image_topic": "'not a topic'"}, "is 'not a topic', expected the name of a topic"),
    ],
)
def test_wrong_parameters_end_the_start_with_a_clear_message(start_detector, wrong, message):
    node = start_detector(**wrong)
    assert node.wait(START_TIMEOUT_S) == 1
    assert message in node.output
    assert "Traceback" not in node.output


def test_another_output_frame_topics_no_clock_and_no_dds_profile(start_process):
    cameras = tuple(replace(camera, image_topic=f"/other{camera.image_topic}") for camera in RIG.cameras)
    topics = {f"cameras.{camera.name}.image_topic": camera.image_topic for camera in cameras[1:]}
    words = detector_command(output_frame="odom", image_reliability="reliable", **topics)
    words += ["--remap", f"{RIG.cameras[0].image_topic}:={cameras[0].image_topic}"]
    words += ["--remap", "~/kinematics:=/perception/kinematics"]
    words += ["-p", "qos_overrides./perception/kinematics.publisher.reliability:=best_effort"]
    words += ["-p", f"qos_overrides.{cameras[1].image_topic}.subscription.depth:=3"]
    node = start_process(words, **{DDS_PROFILE_VARIABLE: ""}, OMP_NUM_THREADS="1")
    with RigPublisher(replace(RIG, cameras=cameras), outputs=["detections", "status"]) as rig:
        rig.warm_up()
        rig.publish_next()
        assert rig.wait_for("detections", 1)[0].header.frame_id == "odom"
        (publisher,) = rig.node.get_publishers_info_by_topic("/perception/kinematics")
        assert publisher.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
        rig.now_ns -= 10 * SECOND_NS  # a bag that starts again, and no /clock to tell
        rig.publish_next()
        first, second = rig.wait_for("status", 2)
        assert second.sets_processed == first.sets_processed + 1
    node.wait_for_output(DDS_PROFILE_VARIABLE)


def test_detects_on_the_real_keyframe(start_process, start_detector, shared_directory, tmp_path):
    """From a bag, with the true stamps and poses of a moving car, at full size: no error, no drop."""
    bevformer = [sys.executable, "-m", "bevformer_ros"]
    folder, bag = shared_directory / "data" / "nuscenes_frame", tmp_path / "bag"
    assert start_process([*bevformer, "keyframe-to-bag", folder, "--output", bag]).wait() == 0
    node = start_detector(rig="nuscenes_compressed", model="tiny", use_sim_time="true", image_reliability="reliable")
    with DetectorListener(outputs=["detections", "overlay", "status"]) as listener:
        node.wait_for_output("detecting with tiny", START_TIMEOUT_S)
        listener.wait_for_outputs()
        player = start_process([*bevformer, "play", bag])
        status = listener.wait_for("status", 1)[0]
        assert (status.sets_processed, counts(status.sets_dropped)) == (1, {})
        assert len(status.cameras_used) == 6
        boxes = listener.wait_for("detections", 1)[0]
        assert stamp_to_ns(boxes.header.stamp) == load_keyframe(folder)["cameras"]["CAM_FRONT"]["timestamp_ns"]
        assert boxes.header.frame_id == "base_link"
        assert len(boxes.detections) > 0
        picture = listener.wait_for("overlay", 1)[0]
        assert (picture.header, picture.encoding) == (boxes.header, "bgr8")
        assert picture.width > 1000
        assert player.wait() == 0
    assert "sets dropped" not in node.output
    assert "Traceback" not in node.output


def test_services_answer_while_a_network_is_loaded_and_a_failed_activation_leaves_nothing(start_detector, tmp_path):
    """Weights that do not fit are noticed late: the subscriptions of a try that fails must be gone."""
    weights = tmp_path / "other.safetensors"
    config = load_yaml(ModelConfig, SMALLEST)
    save_checkpoint(weights, {"nonsense": torch.zeros(1)}, config)
    node = start_detector(autostart="false", weights=weights)
    with DetectorListener(outputs=["status"]) as listener:
        assert listener.change_state(Transition.TRANSITION_CONFIGURE)
        for _ in range(2):
            assert not listener.change_state(Transition.TRANSITION_ACTIVATE)
            assert listener.state() == "inactive"
        assert listener.node.count_subscribers(RIG.cameras[0].image_topic) == 0
        assert listener.change_state(Transition.TRANSITION_CLEANUP)
        model = Parameter("model", value="bevformerv2_r50_t1_base").to_parameter_msg()
        none = Parameter("weights", value="").to_parameter_msg()
        request = SetParameters.Request(parameters=[model, none])
        assert all(
            entry.successful for entry in listener.call(SetParameters, "/detector/set_parameters", request).results
        )
        assert listener.change_state(Transition.TRANSITION_CONFIGURE)
        activation = listener.ask_for(Transition.TRANSITION_ACTIVATE)
        node.wait_for_output("loading the network bevformerv2_r50_t1_base", START_TIMEOUT_S)
        assert listener.state() == "activating"
        assert not listener.change_state(Transition.TRANSITION_CLEANUP)  # one after the other
        loading = [entry for message in listener.wait_for("diagnostics", 1) for entry in message.status]
        assert "loading the network" in loading[0].message
        assert not activation.done()
