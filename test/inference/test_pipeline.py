"""The detector as a whole: results and status, when it forgets, replay, loading."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_recorder import FakeRecorder

from bevformer_ros import geometry
from bevformer_ros.inference.graphs import GraphRunner
from bevformer_ros.inference.history import HistoryConfig
from bevformer_ros.inference.pipeline import Detector, load_detector
from bevformer_ros.model.checkpoint import save_checkpoint
from bevformer_ros.model.config import (
    BackboneConfig,
    BevGridConfig,
    DecoderConfig,
    EncoderConfig,
    ImageConfig,
    ModelConfig,
    ProposalConfig,
    TemporalConfig,
)
from bevformer_ros.model.network import build_network
from bevformer_ros.resources import share_directory
from bevformer_ros.types import CameraImage, SurroundFrame

MS = 1_000_000
MODELS = share_directory() / "config" / "models"
SMALL = ModelConfig(
    name="small",
    image=ImageConfig(source_size=(160, 96), crop=(0, 32, 160, 96), height=64),
    cameras=("LEFT", "RIGHT"),
    channels=32,
    backbone=BackboneConfig(18, 8),
    bev=BevGridConfig(20, 16),
    encoder=EncoderConfig(layers=1, heads=4, hidden_channels=32),
    temporal=TemporalConfig((-2, -1, 0), mode="warp"),
    decoder=DecoderConfig(layers=1, heads=4, hidden_channels=32, queries=30),
    perspective=None,
    max_detections=20,
)


def detector(config=SMALL, seed=0, **history):
    torch.manual_seed(seed)
    return Detector(build_network(config), trained=True, history=HistoryConfig(**history))


def camera(name, yaw, seed, **changes):
    image = np.random.default_rng(seed).integers(0, 256, (96, 160, 3), dtype=np.uint8)
    camera_from_bev = geometry.transform_from_rpy((0, 0, 0), (-np.pi / 2, 0, 0)) @ geometry.transform_from_rpy(
        (0, 0, 0), (0, 0, yaw)
    )
    values = {
        "image": image,
        "intrinsics": np.array([[80.0, 0, 80], [0, 80, 48], [0, 0, 1]]),
        "camera_from_bev": camera_from_bev,
    }
    return CameraImage(name, 0, **{**values, **changes})


def surround(stamp_ms, forward=None, scene="drive", cameras=None):
    """A frame of a drive at 5 m/s; images differ from frame to frame."""
    forward = stamp_ms * 0.005 if forward is None else forward
    if cameras is None:
        cameras = (camera("LEFT", 0.6, stamp_ms), camera("RIGHT", -0.6, stamp_ms + 1))
    cameras = tuple(entry and replace(entry, stamp_ns=stamp_ms * MS) for entry in cameras)
    world_from_bev = geometry.transform_from_rpy((0, forward, 0), (0, 0, 0))
    return SurroundFrame(stamp_ms * MS, cameras, world_from_bev, scene)


def same(first, second):
    names = ("centers", "sizes", "yaws", "velocities", "scores", "labels")
    return all(
        getattr(first, name).shape == getattr(second, name).shape
        and np.allclose(getattr(first, name), getattr(second, name), atol=1e-4)
        for name in names
    )


def test_detections_and_status_of_a_stream():
    detect = detector()
    assert (detect.history.depth, detect.history.slots, detect.history.bytes) == (0, 2, 0)
    depths = []
    for stamp in range(0, 1300, 100):
        detections = detect(surround(stamp))
        depths.append(detect.history.depth)
        assert detections.stamp_ns == stamp * MS
    assert len(detections) == 20
    assert depths == [0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2]  # a frame 0.4 s old already fills the slot at 0.5 s
    assert detect.history.bytes == detect._buffer.capacity * 20 * 16 * 32 * 4
    assert detect.history.resets == {}
    stages = ["preprocess", "backbone", "neck", "encoder", "store", "buffer", "fusion", "decoder", "post"]
    assert list(detect.latencies_ms) == stages
    assert min(detect.latencies_ms.values()) >= 0


def test_a_frame_prepared_ahead_gives_the_same():
    at_once, ahead = detector(), detector()
    for stamp in (0, 500, 1000):
        assert same(at_once(surround(stamp)), ahead(ahead.prepare(surround(stamp))))
    assert "preprocess" not in ahead.latencies_ms


def test_bev_norms_are_of_the_frame_alone_and_leave_no_trace():
    detect, other = detector(), detector()
    expected = [other(surround(0)), other(surround(500))]
    assert same(detect(surround(0)), expected[0])
    norms = detect.bev_norms(surround(250))
    with torch.inference_mode():
        features = other.network.encode(other.prepare(surround(250)).network_inputs()).bev[0].numpy()
    assert norms.shape == (20, 16)
    for row, column in ((0, 0), (3, 11), (19, 15)):  # of 16 columns
        assert norms[row, column] == pytest.approx(np.linalg.norm(features[16 * row + column]), rel=1e-5)
    assert same(detect(surround(500)), expected[1])


def test_warming_up_leaves_no_trace():
    cold, warm = detector(), detector()
    warm.warm_up()
    assert replace(warm.history, bytes=0) == cold.history
    assert warm.latencies_ms == {}
    for stamp in (0, 500):
        assert same(cold(surround(stamp)), warm(surround(stamp)))


def test_nothing_above_the_threshold_is_an_empty_result():
    assert len(detector(replace(SMALL, score_threshold=0.999))(surround(0))) == 0


def test_missing_camera_is_served_and_wrong_number_refused():
    detect = detector()
    assert len(detect(surround(0, cameras=(None, camera("RIGHT", -0.6, 1))))) == 20
    with pytest.raises(ValueError, match="1 cameras, the detector small 2: LEFT, RIGHT"):
        detect(surround(100, cameras=(camera("LEFT", 0.6, 0),)))


def exchanged(stamp_ms):
    cameras = (camera("LEFT", 0.6, 0), camera("SPARE", -0.9, 1))
    return surround(stamp_ms, cameras=cameras)


def zoomed(stamp_ms):
    wide = camera("LEFT", 0.6, 0, intrinsics=np.array([[60.0, 0, 80], [0, 60, 48], [0, 0, 1]]))
    return surround(stamp_ms, cameras=(wide, camera("RIGHT", -0.6, 1)))


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (surround(0), "backward_time"),  # the bag loops
        (surround(1400), "backward_time"),  # the clock jumps back by 0.1 s
        (surround(6500), "gap"),
        (surround(1600, forward=300.0), "pose_jump"),
        (surround(1600, scene="next"), "scene_change"),
        (exchanged(1600), "camera_set_change"),
        (zoomed(1600), "calibration_change"),
    ],
)
def test_history_is_dropped_once_and_the_next_frame_detects(frame, reason):
    detect = detector()
    for stamp in (0, 500, 1000, 1500):
        detect(surround(stamp))
    assert (detect.history.depth, detect.history.resets) == (2, {})
    detections = detect(frame)
    assert (detect.history.depth, detect.history.resets) == (0, {reason: 1})
    assert same(detections, detector()(frame))  # as a detector that never saw anything before
    start, scene, forward = frame.stamp_ns // MS, frame.scene, frame.world_from_bev[1, 3]
    for step in (1, 2):
        detect(surround(start + 500 * step, forward + 2.5 * step, scene, frame.cameras))
    assert (detect.history.depth, detect.history.resets) == (2, {reason: 1})


def test_reset_on_request():
    detect = detector()
    detect(surround(0))
    detect.reset("operator")
    assert detect.history.resets == {"operator": 1}
    assert same(detect(surround(500)), detector()(surround(500)))


@pytest.mark.parametrize("mode", ["warp", "reencode"])
def test_history_matters_and_both_modes_run(mode):
    config = replace(SMALL, temporal=TemporalConfig((-2, -1, 0), mode=mode))
    detect = detector(config)
    for stamp in (0, 500):
        detect(surround(stamp))
    with_history = detect(surround(1000))
    assert not same(with_history, detector(config)(surround(1000)))


def test_modes_agree_while_the_car_stands():
    """Without motion, moving the old BEV map and encoding the old images again are the same thing."""
    results = []
    for mode in ("warp", "reencode"):
        detect = detector(replace(SMALL, temporal=TemporalConfig((-2, -1, 0), mode=mode)))
        for stamp in (0, 500, 1000):
            detections = detect(surround(stamp, forward=0.0))
        results.append(detections)
    assert same(*results)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("mode", ["warp", "reencode"])
def test_reduced_precision_stores_half_as_much_and_stays_close(precision, mode):
    config = replace(SMALL, temporal=TemporalConfig((-2, -1, 0), mode=mode))
    torch.manual_seed(0)
    reduced = Detector(build_network(config), True, precision=precision)
    full = detector(config)
    for stamp in (0, 500, 1000):
        detections, expected = reduced(surround(stamp)), full(surround(stamp))
    assert reduced.history.bytes == full.history.bytes // 2
    assert reduced.history.depth == 2
    np.testing.assert_allclose(detections.scores, expected.scores, atol=0.02)


@pytest.mark.parametrize("mode", ["warp", "reencode"])
def test_replayed_stages_give_what_eager_ones_give(mode):
    """Through reset and missing camera; the recorder stands in for CUDA."""
    config = replace(SMALL, temporal=TemporalConfig((-2, -1, 0), mode=mode))
    eager, replayed = detector(config), detector(config)
    recorder = FakeRecorder()
    replayed._run = GraphRunner(recorder)
    for stamp in (0, 500, 1000, 1500, 1400, 1900):
        assert same(eager(surround(stamp)), replayed(surround(stamp)))
    assert list(replayed.latencies_ms) == ["preprocess", "encode", "store", "detect", "post"]
    assert recorder.recorded == 1 + 3  # one depth of the history after the other
    missing = surround(2400, cameras=(None, camera("RIGHT", -0.6, 1)))
    assert same(eager(missing), replayed(missing))
    assert recorder.recorded == 1 + 3


@pytest.mark.parametrize("mode", ["warp", "reencode"])
@pytest.mark.parametrize("frames", [(0,), (-1, 0), (-4, -2, 0), (-3, 0), (-5, -2, -1, 0)])
def test_warming_up_records_every_depth_of_the_history(frames, mode):
    detect = detector(replace(SMALL, temporal=TemporalConfig(frames, mode=mode)))
    recorder = FakeRecorder()
    detect._run = GraphRunner(recorder)
    detect.warm_up()
    assert recorder.recorded == 1 + len(frames)
    for stamp in (*range(0, 4000, 500), 4700, 5100, 7000, 7500):  # with gaps
        detect(surround(stamp))
    assert recorder.recorded == 1 + len(frames)


def test_float32_is_not_rounded_to_tf32(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)
    detector(SMALL)
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("mode", ["warp", "reencode"])
def test_cuda_graphs_are_recorded_and_give_what_eager_stages_give(mode, precision, caplog):
    config = replace(SMALL, temporal=TemporalConfig((-2, -1, 0), mode=mode))
    detectors = []
    for graphs in (False, True):
        torch.manual_seed(0)
        detectors.append(Detector(build_network(config), True, "cuda", precision, cuda_graphs=graphs))
    eager, graphed = detectors
    graphed.warm_up()
    recorded = graphed._run.recordings
    assert recorded == 1 + 3
    for stamp in (0, 500, 1000, 1500, 1400, 1900):
        expected, actual = eager(surround(stamp)), graphed(surround(stamp))
        np.testing.assert_allclose(actual.scores, expected.scores, atol=1e-4 if precision == "float32" else 1e-2)
    assert graphed._run.recordings == recorded
    assert "without CUDA graphs" not in caplog.text


def test_replayed_future_frames_are_not_overwritten():
    config = replace(SMALL, temporal=TemporalConfig((-1, 0, 1), mode="warp"))
    frames = [surround(stamp) for stamp in range(0, 1500, 250)]
    eager, replayed = detector(config), detector(config)
    replayed._run = GraphRunner(FakeRecorder())
    assert all(same(*pair) for pair in zip(eager.replay(frames), replayed.replay(frames), strict=True))


def test_velocities_follow_the_time_base():
    """The same two pictures, 0.5 and 0.6 s apart: the network cannot tell, the detector can."""
    velocities = []
    for stamp in (500, 600):
        detect = detector(replace(SMALL, temporal=TemporalConfig((-1, 0), mode="warp")))
        detect(surround(0, forward=0.0))
        images = surround(500).cameras
        velocities.append(detect(surround(stamp, forward=3.0, cameras=images)).velocities)
    assert np.abs(velocities[0]).max() > 0
    np.testing.assert_allclose(velocities[1], velocities[0] * 500 / 600, rtol=1e-5)


BOTH_WAYS = replace(SMALL, temporal=TemporalConfig((-1, 0, 1), mode="warp"))


def test_future_frames_are_for_recordings_only():
    with pytest.raises(ValueError, match="small uses future frames and cannot run live; use replay"):
        detector(BOTH_WAYS)(surround(0))


def test_replay_of_a_causal_model_is_the_live_stream():
    frames = [surround(stamp) for stamp in range(0, 1250, 250)]
    live, recorded = detector(), detector()
    expected = [live(frame) for frame in frames]
    assert all(same(*pair) for pair in zip(recorded.replay(frames), expected, strict=True))


def fused_inputs(detect):
    """What the temporal fusion is given from now on, one (1, T, H*W, C) per detection."""
    seen = []
    detect.network.temporal_fusion.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    return seen


@pytest.mark.parametrize("mode", ["warp", "reencode"])
def test_replay_with_future_frames(mode):
    stamps = list(range(0, 1500, 250))
    detect = detector(replace(SMALL, temporal=TemporalConfig((-1, 0, 1), mode=mode)))
    seen = fused_inputs(detect)
    frames = [surround(stamp, forward=0.0) for stamp in stamps]
    detections = list(detect.replay(frames))
    assert [entry.stamp_ns // MS for entry in detections] == stamps
    own = [bevs[0, 1] for bevs in seen]
    for index, bevs in enumerate(seen):
        before, after = index - 2, index + 2
        torch.testing.assert_close(bevs[0, 0], own[before] if before >= 0 else own[index], atol=1e-4, rtol=0)
        torch.testing.assert_close(bevs[0, 2], own[after] if after < len(own) else own[index], atol=1e-4, rtol=0)


def test_replay_waits_no_longer_than_the_future_frame():
    consumed = []

    def frames():
        for stamp in range(0, 3000, 250):
            consumed.append(stamp)
            yield surround(stamp)

    next(detector(BOTH_WAYS).replay(frames()))
    assert consumed == [0, 250, 500]


def test_replay_never_looks_into_the_next_scene():
    detect = detector(BOTH_WAYS)
    seen = fused_inputs(detect)
    frames = [surround(0), surround(250), surround(500, scene="next"), surround(1000, scene="next")]
    assert len(list(detect.replay(frames))) == 4
    assert detect.history.resets == {"scene_change": 1}
    first, second, third, _ = seen
    assert torch.equal(first[0, 2], first[0, 1])
    assert torch.equal(second[0, 2], second[0, 1])
    assert torch.equal(third[0, 0], third[0, 1])
    assert not torch.equal(third[0, 2], third[0, 1])


def test_two_stage_detections_carry_their_proposals():
    two_stage = load_detector(MODELS / "tiny_two_stage.yaml")
    config = replace(two_stage.config, image=ImageConfig((160, 96), (0, 32, 160, 96), 64))
    config = replace(config, proposals=ProposalConfig(score_threshold=0.0, minimum_score=0.0, count=10))
    detect = detector(config)
    cameras = tuple(camera(name, index * np.pi / 3, index) for index, name in enumerate(config.cameras))
    detections = detect(surround(0, cameras=cameras))
    assert "perspective" in detect.latencies_ms
    assert detections.proposals is not None
    assert 0 < len(detections.proposals) <= 10
    assert detections.from_proposal.any()
    assert not detections.from_proposal.all()


def test_random_weights_are_announced_and_repeatable(caplog):
    with caplog.at_level(logging.WARNING):
        first = load_detector(MODELS / "tiny.yaml")
    assert not first.trained
    assert "RANDOM weights" in caplog.text
    second = load_detector(MODELS / "tiny.yaml")
    states = (first.network.state_dict(), second.network.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    other = load_detector(MODELS / "tiny.yaml", seed=1).network.state_dict()
    assert any(not torch.equal(states[0][name], other[name]) for name in other)


def test_a_checkpoint_of_ours_needs_no_yaml(tmp_path, caplog):
    network = build_network(SMALL)
    save_checkpoint(tmp_path / "small.safetensors", network.state_dict(), SMALL)
    detect = load_detector(tmp_path / "small.safetensors")
    assert detect.trained
    assert detect.config == SMALL
    assert "RANDOM" not in caplog.text
    with pytest.raises(ValueError, match="precision is 'float8', expected one of auto, float32, bfloat16, float16"):
        load_detector(tmp_path / "small.safetensors", precision="float8")


def test_weights_of_another_configuration_are_refused(tmp_path):
    path = tmp_path / "small.safetensors"
    save_checkpoint(path, build_network(SMALL).state_dict(), replace(SMALL, max_detections=7))
    with pytest.raises(ValueError, match=r"trained with another configuration than .*tiny.yaml: .*max_detections"):
        load_detector(MODELS / "tiny.yaml", path)
    assert load_detector(path).config.max_detections == 7


def test_weights_may_recommend_a_score(tmp_path):
    path = tmp_path / "small.safetensors"
    save_checkpoint(path, build_network(SMALL).state_dict(), SMALL)
    assert load_detector(path).recommended_score_thresholds is None
    save_checkpoint(path, build_network(SMALL).state_dict(), SMALL, 0.4)
    assert load_detector(path).recommended_score_thresholds == (0.4,) * 10
