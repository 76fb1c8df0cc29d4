"""A network in a car of other cameras than it was trained with: fewer, more, under other names, in another order."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_recorder import FakeRecorder
from support import REPOSITORY

from bevformer_ros import geometry
from bevformer_ros.config import load_yaml
from bevformer_ros.inference.export import parts, sampling
from bevformer_ros.inference.graphs import GraphRunner
from bevformer_ros.inference.history import HistoryConfig
from bevformer_ros.inference.network_preparation import fit_to_cameras
from bevformer_ros.inference.pipeline import Detector, load_detector
from bevformer_ros.model.config import ModelConfig, ProposalConfig, TemporalConfig
from bevformer_ros.model.network import build_network
from bevformer_ros.types import CameraImage, SurroundFrame

TWO_STAGE = load_yaml(ModelConfig, REPOSITORY / "test" / "smallest_two_stage.yaml")
NAMES = TWO_STAGE.cameras
SIZE = (160, 90)
HEADINGS = dict(zip(NAMES, np.radians((0, -55, 55, 180, 110, -110)), strict=True))
SAME = {"rtol": 1e-3, "atol": 1e-4}


def config_of(mode):
    proposals = ProposalConfig(score_threshold=0.0, minimum_score=0.0, count=10)
    return replace(TWO_STAGE, proposals=proposals, temporal=TemporalConfig((-1, 0), mode=mode, blocks=1))


def detector(model_cameras=None, mode="warp"):
    torch.manual_seed(0)
    network = build_network(config_of(mode))
    with torch.no_grad():
        network.bev_encoder.camera_embedding.normal_(0.0, 3.0)  # so that it matters which of them a camera takes
    if model_cameras is not None:
        fit_to_cameras(network, model_cameras)
    return Detector(network, trained=True, history=HistoryConfig())


def image(name, seed, heading):
    pixels = np.random.default_rng(seed).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    bev_from_camera = geometry.transform_from_rpy((0.0, 0.5, 0.0), (-np.pi / 2, 0.0, heading))
    intrinsics = np.array([[80.0, 0, 80], [0, 80, 45], [0, 0, 1]])
    return CameraImage(name, 0, pixels, intrinsics, geometry.invert(bev_from_camera))


IMAGES = {name: image(name, seed, HEADINGS[name]) for seed, name in enumerate(NAMES)}
SPARES = (image("roof", 10, 0.3), image("trailer", 11, np.pi))


def drive(*cameras):
    """Two sets, the second of which sees the first."""
    for stamp in (0, 500_000_000):
        yield SurroundFrame(stamp, cameras, geometry.transform_from_rpy((0, stamp * 5e-9, 0), (0, 0, 0)))


def last(detect, *cameras):
    *_, found = (detect(frame) for frame in drive(*cameras))
    assert detect.history.depth == 1
    return found


def assert_same(first, second):
    for name in ("centers", "sizes", "velocities", "scores"):
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), **SAME, err_msg=name)
    np.testing.assert_allclose(np.exp(1j * first.yaws), np.exp(1j * second.yaws), **SAME)
    assert np.array_equal(first.labels, second.labels)


@pytest.mark.parametrize("mode", ["warp", "reencode"])
@pytest.mark.parametrize("count", [1, 3, 5, 6])
def test_cameras_that_the_rig_lacks_are_as_if_they_sent_nothing(count, mode):
    used = NAMES[:count]
    of_six = last(detector(mode=mode), *(IMAGES[name] if name in used else None for name in NAMES))
    fitted = detector({name: name for name in used}, mode)
    assert fitted.config.cameras == used
    assert_same(last(fitted, *(IMAGES[name] for name in used)), of_six)


def test_more_cameras_than_the_model_share_embeddings_by_wish(caplog):
    model_cameras = {**{name: name for name in NAMES}, "roof": "CAM_FRONT", "trailer": "CAM_BACK"}
    with caplog.at_level(logging.WARNING):
        fitted = detector(model_cameras)
    assert [record.getMessage() for record in caplog.records] == [
        "CAM_FRONT and roof share the embedding of CAM_FRONT, which was learned for one camera",
        "CAM_BACK and trailer share the embedding of CAM_BACK, which was learned for one camera",
    ]
    of_six = last(detector(), *IMAGES.values())
    assert_same(last(fitted, *IMAGES.values(), None, None), of_six)
    with_all = last(detector(model_cameras), *IMAGES.values(), *SPARES)
    assert np.abs(with_all.scores - of_six.scores).max() > 1e-3


def test_order_changes_nothing():
    order = [3, 0, 5, 1, 4, 2]
    turned = detector({NAMES[index]: NAMES[index] for index in order})
    assert_same(last(turned, *(IMAGES[NAMES[index]] for index in order)), last(detector(), *IMAGES.values()))


def test_names_change_nothing_and_embeddings_do():
    images = [replace(camera, name=f"left_{index}") for index, camera in enumerate(IMAGES.values())]
    of_six = last(detector(), *IMAGES.values())
    renamed = detector({camera.name: name for camera, name in zip(images, NAMES, strict=True)})
    assert_same(last(renamed, *images), of_six)
    exchanged = detector({camera.name: name for camera, name in zip(images, reversed(NAMES), strict=True)})
    assert np.abs(last(exchanged, *images).scores - of_six.scores).max() > 1e-3


def test_a_camera_that_the_network_lacks_is_refused():
    with pytest.raises(ValueError, match="cameras CAM_FRONT, .* but in the rig roof takes that of CAM_TOP"):
        detector({"CAM_FRONT": "CAM_FRONT", "roof": "CAM_TOP"})


@pytest.mark.parametrize("count", [1, 5, 8])
def test_graphs_and_exported_files_have_the_cameras_of_the_rig(count):
    model_cameras = {f"camera_{index}": NAMES[index % len(NAMES)] for index in range(count)}
    fitted = load_detector(REPOSITORY / "test" / "smallest_two_stage.yaml", model_cameras=model_cameras)
    fitted._run = GraphRunner(FakeRecorder())
    fitted.warm_up()
    recorded = fitted._run.recordings
    cameras = [image(name, seed, seed) for seed, name in enumerate(model_cameras)]
    fitted(SurroundFrame(0, tuple(cameras), np.eye(4)))
    assert fitted._run.recordings == recorded > 0  # warmed up with as many cameras as come
    encode, *_ = parts(fitted.network, sampling("onnx"))
    assert encode.inputs[0].shape[1] == count
    with torch.no_grad():
        assert encode.module(*encode.inputs)[0].isfinite().all()
