"""The rules of docs/performance.md, "Streams and buffers on a GPU", with a detector on a GPU that finds races."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_recorder import FakeRecorder
from pretended_gpu import Event, PretendedGpu, RaceError

from bevformer_ros import geometry
from bevformer_ros.config import load_yaml
from bevformer_ros.inference.device_image import DeviceImage
from bevformer_ros.inference.gpu_clock import GpuClock
from bevformer_ros.inference.graphs import GraphRunner
from bevformer_ros.inference.pipeline import Detector
from bevformer_ros.inference.streams import PreparationStream, event_now
from bevformer_ros.lens import Lens
from bevformer_ros.model import fused_operators
from bevformer_ros.model.config import BackboneConfig, ImageConfig, ModelConfig, ProposalConfig, TemporalConfig
from bevformer_ros.model.network import build_network
from bevformer_ros.resources import config_file
from bevformer_ros.types import MILLISECOND_NS, CameraImage, Detections3D, SurroundFrame

GPU = torch.device("cuda")
TINY = load_yaml(ModelConfig, config_file("models", "tiny_two_stage"))
BENT = Lens("plumb_bob", (-0.3, 0.07, 0.0, 0.0, 0.0))
HALF_S = 500


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fused_operators, "_DEVICES", ())
    with PretendedGpu(monkeypatch) as pretended:
        yield pretended


def config(frames: tuple[int, ...] = (-1, 0), mode: str = "warp") -> ModelConfig:
    return replace(
        TINY,
        image=ImageConfig(source_size=(160, 96), crop=(0, 32, 160, 96), height=64),
        backbone=BackboneConfig(18, 8),
        temporal=TemporalConfig(frames, mode=mode),
        proposals=ProposalConfig(score_threshold=0.0, minimum_score=0.0, count=10),
    )


def detector(model: ModelConfig, recorded: bool = False, cuda_graphs: bool = False) -> Detector:
    torch.manual_seed(0)
    made = Detector(build_network(model), True, "cuda", cuda_graphs=cuda_graphs)
    if recorded:
        made._run = GraphRunner(FakeRecorder())
    return made


def surround(number: int, decoded_by: Detector | None = None) -> SurroundFrame:
    """One distorted camera, one with a mask, one missing. decoded_by: while which was preparing, if on the GPU."""
    cameras: list[CameraImage | None] = []
    for index, name in enumerate(TINY.cameras):
        image = np.random.default_rng(10 * number + index).integers(0, 256, (96, 160, 3), dtype=np.uint8)
        camera_from_bev = geometry.transform_from_rpy((0, 0, 0), (-np.pi / 2, 0, 0)) @ geometry.transform_from_rpy(
            (0, 0, 0), (0, 0, index)
        )
        intrinsics = np.array([[80.0, 0, 80], [0, 80, 48], [0, 0, 1]])
        entry = CameraImage(name, number * HALF_S * MILLISECOND_NS, image, intrinsics, camera_from_bev)
        if decoded_by is not None:
            with decoded_by.preparing():
                entry = replace(entry, image=DeviceImage(torch.from_numpy(image).to(GPU)))
        cameras.append(entry)
    cameras[1] = replace(cameras[1], lens=BENT)
    cameras[2] = replace(cameras[2], masks=(((10.0, 50.0), (90.0, 50.0), (50.0, 90.0)),))
    cameras[3] = None
    return SurroundFrame(number * HALF_S * MILLISECOND_NS, tuple(cameras), np.eye(4))


def assert_same(actual: list[Detections3D], expected: list[Detections3D]) -> None:
    for one, other in zip(actual, expected, strict=True):
        assert len(one) == len(other) > 0
        np.testing.assert_array_equal(one.centers, other.centers)
        np.testing.assert_array_equal(one.proposals.scores, other.proposals.scores)


def detect_ahead(detect: Detector, frame: Callable[[int], SurroundFrame] = surround) -> list[Detections3D]:
    """As the node does: the next frame is prepared before one is detected in."""
    found = []
    waiting = detect.prepare(frame(0))
    for number in range(1, 5):
        following = detect.prepare(frame(number))
        found.append(detect(waiting))
        waiting = following
    return found


@pytest.mark.parametrize(
    ("mode", "recorded"),
    [
        ("warp", False),
        ("reencode", True),
        pytest.param("warp", True, marks=pytest.mark.slow),
        pytest.param("reencode", False, marks=pytest.mark.slow),
    ],
)
def test_frames_are_prepared_beside_the_network_without_a_race(gpu, mode, recorded):
    """And the host waits for boxes alone, once a frame."""
    ahead, at_once = (detector(config(mode=mode), recorded) for _ in range(2))
    gpu.waits = 0
    found = detect_ahead(ahead)
    assert gpu.waits == len(found)
    assert_same(found, [at_once(surround(number)) for number in range(4)])


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("decoded_there", [False, True])
def test_a_real_gpu_finds_the_same_ahead_and_at_once(decoded_there):
    ahead, at_once = (detector(config(), cuda_graphs=True) for _ in range(2))
    found = detect_ahead(ahead, lambda number: surround(number, decoded_by=ahead if decoded_there else None))
    for actual, expected in zip(found, [at_once(surround(number)) for number in range(4)], strict=True):
        np.testing.assert_allclose(actual.scores, expected.scores, atol=1e-4)


def test_images_that_a_gpu_has_decoded_stay_on_the_stream_of_the_preparation(gpu):
    ahead, at_once = detector(config()), detector(config())
    found = detect_ahead(ahead, lambda number: surround(number, decoded_by=ahead))
    assert_same(found, [at_once(surround(number)) for number in range(4)])
    frame = surround(0, decoded_by=ahead)
    ahead(frame)
    np.testing.assert_array_equal(frame.cameras[0].image, surround(0).cameras[0].image)  # as the overlay takes it


def test_a_network_that_did_not_wait_would_be_seen(gpu):
    detect = detector(config())
    hasty = replace(detect.prepare(surround(0)), ready=torch.cuda.Event())
    with pytest.raises(RaceError, match="reads what stream"):
        detect(hasty)


def test_future_frames(gpu):
    """Of which several are read before the host waits once."""
    assert len(list(detector(config(frames=(-1, 0, 2))).replay(map(surround, range(6))))) == 6


def read(stream: PreparationStream, error: type[Exception] | None = None) -> weakref.ref[torch.Tensor]:
    """A frame that the network's stream works with from now on, and nobody else knows."""
    frame = torch.zeros(1)
    with stream.reading(frame):
        torch.zeros(1, device=GPU)
        if error is not None:
            raise error
    return weakref.ref(frame)


def test_a_frame_is_kept_until_the_network_has_read_it(gpu):
    stream = PreparationStream(GPU)
    first, second = read(stream), read(stream)
    assert first() is not None and second() is not None
    torch.cuda.current_stream(GPU).synchronize()
    third = read(stream)
    assert (first(), second()) == (None, None)
    assert third() is not None


def test_a_frame_with_which_the_network_fails_is_kept_too(gpu):
    stream = PreparationStream(GPU)
    with pytest.raises(MemoryError):
        read(stream, MemoryError)
    assert len(stream._being_read) == 1


def test_stages_are_timed_on_the_stream_on_which_they_run(gpu, monkeypatch):
    recorded = []
    monkeypatch.setattr(Event, "record", lambda event, stream: recorded.append(stream.name))
    clock = GpuClock(GPU)
    stream = PreparationStream(GPU)
    with stream.preparing():
        clock.mark("preprocess")
    clock.mark("encode")
    assert recorded == ["default", "stream 0", "default"]
    assert list(clock.latencies_ms()) == ["preprocess", "encode"]


def test_on_a_cpu_there_is_nothing_to_wait_for():
    stream = PreparationStream(torch.device("cpu"))
    frame = torch.zeros(1)
    kept = weakref.ref(frame)
    with stream.preparing(), stream.reading(frame):
        assert event_now(torch.device("cpu")) is None
    del frame
    assert kept() is None
