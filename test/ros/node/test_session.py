"""The worker's side of the node, with a detector that does what the test says; nothing is sent or spun."""

from __future__ import annotations

import math
import threading
import time
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("tf2_ros", reason="needs the ROS environment that `make test` makes")

import rclpy
import torch
from bevformer_ros.msg import DetectorStatus
from rclpy.lifecycle import Node
from sensor_msgs.msg import CameraInfo
from support import REPOSITORY, wait_until
from tf2_ros import Buffer

from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.inference.frame_history import HistoryStatus
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.ros.conversions import header_of, image_to_message, stamp_to_ns, transform_to_message
from bevformer_ros.ros.ego_motion import EgoMotion
from bevformer_ros.ros.node import session
from bevformer_ros.ros.node.session import DetectionSession
from bevformer_ros.ros.node.settings import Settings
from bevformer_ros.ros.node.tf_buffer import TfTransforms
from bevformer_ros.taxonomy import CLASS_NAMES, NO_ATTRIBUTE
from bevformer_ros.types import SECOND_NS, Detections3D

RIG = load_yaml(RigConfig, REPOSITORY / "config" / "rigs" / "nuscenes.yaml")
LONG = 10.0


class Detector:
    """Finds boxes of the scores 0.9, 0.5 and 0.1. fail: raise instead. gate: wait for it before each frame.

    threads: what torch computes with in prepare() and in the call, set by set.
    """

    config = load_yaml(ModelConfig, REPOSITORY / "config" / "models" / "tiny.yaml")
    trained = False
    recommended_score_thresholds = None
    error_model = None
    latencies_ms = {"network": 5.0}  # noqa: RUF012
    history = HistoryStatus(depth=2, slots=3, bytes=7, resets={})

    def __init__(self):
        self.fail, self.gate, self.resets, self.frames = None, None, [], []
        self.graphs = False
        self.poison = 0.0
        self.threads = {"prepare": [], "detect": []}

    def preparing(self):
        return nullcontext()

    def use_less_memory(self):
        had, self.graphs = self.graphs, False
        return had

    def reset(self, reason):
        self.resets.append((reason, len(self.frames)))

    def prepare(self, frame):
        self.threads["prepare"].append(torch.get_num_threads())
        return frame

    def __call__(self, frame):
        self.threads["detect"].append(torch.get_num_threads())
        self.frames.append(frame)
        if self.gate is not None:
            assert self.gate.acquire(timeout=LONG)
        if self.fail:
            raise self.fail
        return Detections3D(
            stamp_ns=frame.stamp_ns,
            centers=np.full((3, 3), self.poison),
            sizes=np.ones((3, 3)),
            yaws=np.zeros(3),
            velocities=np.zeros((3, 2)),
            scores=np.array([0.9, 0.5, 0.1]),
            labels=np.zeros(3, np.int64),
            attributes=np.full(3, NO_ATTRIBUTE),
            from_proposal=np.zeros(3, np.bool_),
        )


class Outputs:
    def __init__(self):
        self.detections, self.statuses, self.warnings, self.tracks = [], [], [], []
        self.listeners = True

    def has_listeners(self):
        return self.listeners

    def publish_tracks(self, tracks, world_from_bev, output_from_bev, period_ns):
        self.tracks.append(tracks)

    def publish_detections(self, detections, output_from_bev, period_ns, error_model):
        self.detections.append(detections)

    def publish_status(self, status):
        self.statuses.append(status)

    def publish_overlay(self, frame, detections, warning):
        self.warnings.append(warning)


class Bench:
    def __init__(self, node, settings):
        buffer = Buffer()
        for stamp_ns in (0, 9 * SECOND_NS):
            buffer.set_transform(transform_to_message(np.eye(4), "odom", "base_link", stamp_ns), "test")
        buffer.set_transform_static(transform_to_message(np.eye(4), "base_link", "camera", 0), "test")
        self.detector, self.outputs = Detector(), Outputs()
        ego_motion = EgoMotion(TfTransforms(buffer), RIG)
        self.node = node
        self.session = DetectionSession(node, settings, RIG, ego_motion, self.outputs, self.detector)
        self.session.open()
        info = CameraInfo(k=[5.0, 0.0, 4.0, 0.0, 5.0, 3.0, 0.0, 0.0, 1.0])
        for camera in range(len(RIG.cameras)):
            self.session._assembler.set_camera_info(camera, info)

    def send(self, tenth):
        """A complete set, a tenth of a second after the last one."""
        stamp_ns = SECOND_NS + tenth * SECOND_NS // 10
        for index, camera in enumerate(RIG.cameras):
            header = header_of(stamp_ns + round(camera.exposure_offset_ms * 1e6), "camera")
            self.session.synchronizer.add(index, image_to_message(np.zeros((6, 8, 3), np.uint8), header))

    def wait(self, count):
        """The last status, once there are so many."""
        wait_until(lambda: len(self.outputs.statuses) >= count, f"{count} statuses", LONG)
        return self.outputs.statuses[-1]


def drops(status):
    return {entry.reason: entry.count for entry in status.sets_dropped}


@pytest.fixture
def settings():
    return Settings()


@pytest.fixture
def bench(settings):
    context = rclpy.Context()
    rclpy.init(context=context)
    node = Node("session", context=context)
    made = Bench(node, settings)
    yield made
    if made.detector.gate is not None:
        made.detector.gate.release(100)
    made.session.close()
    node.destroy_node()
    rclpy.shutdown(context=context)


def test_a_set_becomes_boxes_above_the_threshold(bench):
    bench.send(0)
    status = bench.wait(1)
    assert (status.sets_processed, drops(status)) == (1, {})
    assert stamp_to_ns(status.header.stamp) == SECOND_NS
    assert [entry.stage for entry in status.latencies] == [
        "queue",
        "decode_images",
        "wait_for_transforms",
        "preprocess",
        "wait_for_network",
        "network",
        "publish",
    ]
    assert (status.history_depth, status.history_slots, status.history_bytes) == (2, 3, 7)
    assert list(bench.outputs.detections[0].scores) == [0.9, 0.5]
    wait_until(lambda: bench.outputs.warnings, "the overlay")
    assert "UNTRAINED" in bench.outputs.warnings[0]


def test_the_network_alone_has_all_threads(bench):
    for count in (1, 2):
        bench.send(count)
        bench.wait(count)
    assert bench.detector.threads == {"prepare": [1, 1], "detect": [torch.get_num_threads()] * 2}


def test_a_set_that_breaks_the_network_is_counted_and_the_next_one_goes_on(bench):
    bench.detector.fail = RuntimeError("the network broke")
    bench.send(0)
    assert drops(bench.wait(1)) == {"failed": 1}
    bench.detector.fail = None
    bench.send(1)
    status = bench.wait(2)
    assert (status.sets_processed, drops(status)) == (1, {"failed": 1})


def test_one_set_is_prepared_ahead_and_then_the_newest_is_next(bench):
    bench.detector.gate = threading.Semaphore(0)
    bench.send(0)
    wait_until(lambda: bench.detector.frames, "the first set")
    bench.send(1)
    wait_until(lambda: bench.session._worker._prepared is not None, "the second set to be decoded")
    for tenth in (2, 3, 4):
        bench.send(tenth)
    assert drops(bench.wait(2)) == {"superseded": 2}
    bench.detector.gate.release(3)
    status = bench.wait(5)
    assert (status.sets_processed, drops(status)) == (3, {"superseded": 2})
    assert [frame.stamp_ns for frame in bench.detector.frames] == [
        SECOND_NS + tenth * SECOND_NS // 10 for tenth in (0, 1, 4)
    ]


def test_a_reset_is_done_before_the_next_set_and_once(bench):
    bench.send(0)
    bench.wait(1)
    bench.session.request_reset()
    for tenth in (1, 2):
        bench.send(tenth)
        bench.wait(tenth + 1)
    assert bench.detector.resets == [("request", 1)]


def test_the_threshold_may_change(bench):
    bench.session.score_thresholds = np.full(len(CLASS_NAMES), 0.8)
    bench.send(0)
    bench.wait(1)
    assert len(bench.outputs.detections[0]) == 1


def test_closing_counts_what_waits(bench):
    bench.detector.gate = threading.Semaphore(0)
    bench.send(0)
    wait_until(lambda: bench.detector.frames, "the first set")
    bench.send(1)
    bench.session.synchronizer.add(
        0, image_to_message(np.zeros((6, 8, 3), np.uint8), header_of(5 * SECOND_NS, "camera"))
    )
    assert not bench.session.close(timeout_s=0)
    assert drops(bench.wait(2)) == {"deactivated": 2}


def test_boxes_that_are_not_finite_are_never_published(bench):
    bench.detector.poison = math.nan
    bench.send(0)
    assert drops(bench.wait(1)) == {"not_finite": 1}
    assert bench.outputs.detections == []
    assert bench.detector.resets == [("not_finite", 1)]
    bench.detector.poison = 0.0
    bench.send(1)
    assert bench.wait(2).sets_processed == 1


OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 2 GiB.\nMore"


def test_a_gpu_without_room_goes_on_with_less_memory_once_and_says_so(bench, monkeypatch):
    warnings = []
    monkeypatch.setattr(bench.node, "get_logger", lambda: SimpleNamespace(info=str, warning=warnings.append))
    bench.detector.fail, bench.detector.graphs = torch.cuda.OutOfMemoryError(OUT_OF_MEMORY), True
    for tenth in range(3):
        bench.send(tenth)
        bench.wait(tenth + 1)
    assert drops(bench.outputs.statuses[-1]) == {"out_of_memory": 3}
    assert not bench.detector.graphs
    (line,) = warnings
    assert "running without CUDA graphs from now on" in line
    problems = bench.session.health.assess(time.monotonic(), {}).problems
    (problem,) = (problem for problem in problems if problem.code == "sets_dropped")
    assert "Tried to allocate 2 GiB.; take a smaller model" in problem.text
    bench.detector.fail = None
    bench.send(3)
    assert bench.wait(4).sets_processed == 1


@pytest.mark.parametrize("settings", [Settings(on_cuda_oom="drop")])
def test_a_gpu_without_room_keeps_its_graphs_where_the_user_says_so(bench):
    bench.detector.fail, bench.detector.graphs = torch.cuda.OutOfMemoryError(OUT_OF_MEMORY), True
    bench.send(0)
    assert drops(bench.wait(1)) == {"out_of_memory": 1}
    assert bench.detector.graphs


def test_a_gpu_without_room_for_the_images_is_counted_as_such(bench):
    def prepare(frame):
        raise torch.cuda.OutOfMemoryError(OUT_OF_MEMORY)

    bench.detector.prepare = prepare
    bench.send(0)
    assert drops(bench.wait(1)) == {"out_of_memory": 1}


@pytest.mark.parametrize("where", ["prepare", "detect"])
def test_a_gpu_that_is_lost_is_noticed_at_the_set_that_fails(bench, monkeypatch, where):
    def refuse(frame):
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    answers = {"cpu": ""}
    monkeypatch.setattr(session, "why_lost", lambda device: answers[device])
    if where == "prepare":
        bench.detector.prepare = refuse
    else:
        bench.detector.fail = torch.AcceleratorError("CUDA error: device-side assert triggered")
    bench.send(0)
    bench.wait(1)
    assert bench.session.gpu_lost == ""  # an error of which the GPU knows nothing
    answers["cpu"] = "CUDA error: device-side assert triggered"
    bench.send(1)
    assert drops(bench.wait(2)) == {"failed": 2}
    wait_until(lambda: bench.session.gpu_lost, "the GPU to be asked")
    assert bench.session.gpu_lost == answers["cpu"]


def test_an_overlay_that_fails_costs_no_set(bench):
    bench.outputs.publish_overlay = None  # cannot be called
    for count in (1, 2):
        bench.send(count)
        status = bench.wait(count)
    assert (status.sets_processed, drops(status)) == (2, {})


def test_what_weights_recommend_is_the_threshold_unless_the_user_says_another(bench):
    arguments = (RIG, bench.session._ego_motion, bench.outputs, bench.detector)
    rising = tuple(number / 10 for number in range(10))
    for recommended, wanted, thresholds in (
        (None, -1.0, (0.2,) * 10),
        (rising, -1.0, rising),
        (rising, 0.0, (0.0,) * 10),
        (rising, (0.9, *(-1.0,) * 9), (0.9, *rising[1:])),
    ):
        bench.detector.recommended_score_thresholds = recommended
        session = DetectionSession(bench.node, Settings(score_threshold=wanted), *arguments)
        assert tuple(session.score_thresholds) == thresholds


def test_a_box_needs_the_score_of_its_class(bench):
    """All of the double's are barriers."""
    for tenth, (barrier, others, count) in enumerate([(0.3, 1.0, 2), (1.0, 0.0, 0)]):
        bench.session.score_thresholds = np.where(np.array(CLASS_NAMES) == "barrier", barrier, others)
        bench.send(tenth)
        bench.wait(tenth + 1)
        assert len(bench.outputs.detections[tenth]) == count


def test_health_knows_what_happened(bench):
    bench.send(0)
    bench.wait(1)
    values = bench.session.health.assess(time.monotonic(), {}).values
    assert values["CAM_BACK"]["transform"] == values["CAM_BACK"]["decoding"] == "ok"
    assert values[""]["history"] == "2 of 3"


def test_an_idle_session_says_so(bench):
    bench.session.publish_idle(0.0)
    assert bench.outputs.statuses[-1].event == DetectorStatus.IDLE
    bench.session.publish_idle(LONG)
    assert len(bench.outputs.statuses) == 1


@pytest.mark.parametrize("settings", [Settings(tracking=True)])
def test_tracks_go_on_until_the_history_is_dropped(bench):
    """Poor boxes do not begin tracks, but the tracker is given them."""
    for tenth in range(4):
        if tenth == 2:
            bench.detector.history = HistoryStatus(depth=0, slots=3, bytes=7, resets={"request": 1})
        bench.send(tenth)
        status = bench.wait(tenth + 1)
    assert "track" in [entry.stage for entry in status.latencies]
    assert [tracks.ids.tolist() for tracks in bench.outputs.tracks] == [[1], [1, 2], [3], [3, 4]]
    assert [tracks.boxes.scores.max() for tracks in bench.outputs.tracks] == [0.9] * 4


def test_no_tracks_unless_asked_for(bench):
    bench.send(0)
    bench.wait(1)
    assert bench.outputs.tracks == []


@pytest.mark.parametrize("settings", [Settings(skip_if_unsubscribed=True)])
def test_nothing_is_computed_while_nobody_listens(bench):
    bench.outputs.listeners = False
    bench.send(0)
    assert drops(bench.wait(1)) == {"unsubscribed": 1}
    bench.outputs.listeners = True
    bench.send(1)
    assert (bench.wait(2).sets_processed, len(bench.detector.frames)) == (1, 1)


@pytest.mark.parametrize("settings", [Settings(publish_rate_limit=5.0)])
def test_sets_beyond_the_rate_limit_are_dropped(bench):
    for tenth in range(4):
        bench.send(tenth)
        status = bench.wait(tenth + 1)
    assert (status.sets_processed, drops(status)) == (2, {"rate_limit": 2})
    assert [stamp_to_ns(entry.header.stamp) for entry in bench.outputs.statuses] == [
        SECOND_NS + tenth * SECOND_NS // 10 for tenth in range(4)
    ]
