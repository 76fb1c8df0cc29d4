"""The detector in ONNX Runtime beside the one in torch: the same boxes, with history, and without torch at hand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from exported_networks import detector_of
from support import REPOSITORY, SMALLEST
from without_ros import blocker

from bevformer_ros.benchmarks.frames import frames
from bevformer_ros.inference.export import export
from bevformer_ros.inference.pipeline import Detector, load_detector
from bevformer_ros.simulation.drive import Drive, observations
from bevformer_ros.types import Detections3D, SurroundFrame

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from bevformer_ros.inference.onnx_detector import OnnxDetector, load_onnx_detector

SMALLEST_TWO_STAGE = REPOSITORY / "test" / "smallest_two_stage.yaml"
TOLERANCES = {"centers": 1e-3, "sizes": 1e-3, "yaws": 2e-3, "velocities": 1e-3, "scores": 1e-4}
GREY_LEVEL = 2e-3  # relative; resized pixels may differ by one
MASKS = (((0.0, 60.0), (80.0, 60.0), (80.0, 90.0), (0.0, 90.0)),)  # in images of 160 x 90


@pytest.fixture(scope="module")
def two_stages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Detector, Path]:
    """A detector with a history and its export."""
    detector, folder = detector_of(SMALLEST_TWO_STAGE), tmp_path_factory.mktemp("exported")
    detector.recommended_score_thresholds = 10 * (0.3,)
    export(detector, "onnx", folder)
    return detector, folder


def assert_same(first: Detections3D, second: Detections3D) -> None:
    assert len(first) == len(second) > 0
    assert first.labels.tolist() == second.labels.tolist()
    for name, tolerance in TOLERANCES.items():
        ours, theirs = getattr(first, name), getattr(second, name)
        np.testing.assert_allclose(ours, theirs, rtol=GREY_LEVEL, atol=tolerance, err_msg=name)


def compared(ours: OnnxDetector, theirs: Detector, drive: Iterator[SurroundFrame], least_score: float = 0.0) -> None:
    for frame in drive:
        assert_same(*(found.select(found.scores >= least_score) for found in (ours(frame), theirs(frame))))
        assert ours.history.depth == theirs.history.depth
    assert ours.history.depth == ours.history.slots > 0


def test_boxes_are_those_of_torch(two_stages: tuple[Detector, Path]) -> None:
    """A camera is missing from the third frame, the fifth begins a new scene."""
    theirs, folder = two_stages
    ours = load_onnx_detector(folder)
    assert (ours.trained, ours.recommended_score_thresholds) == (False, 10 * (0.3,))
    theirs.reset()
    drive = list(islice(frames(theirs.config), 6))
    drive[2] = replace(drive[2], cameras=(None, *drive[2].cameras[1:]))
    drive[4:] = [replace(frame, scene="another") for frame in drive[4:]]
    compared(ours, theirs, iter(drive))
    assert ours.history.resets == {"scene_change": 1}
    assert ours.history.bytes > 0
    assert list(ours.latencies_ms) == ["preprocess", "encode", "store", "buffer", "detect", "post"]


def test_boxes_of_a_model_that_encodes_the_past_anew(tmp_path: Path) -> None:
    theirs = detector_of(SMALLEST, "reencode")
    export(theirs, "onnx", tmp_path)
    compared(load_onnx_detector(tmp_path), theirs, islice(frames(theirs.config), 3))


@pytest.mark.slow
def test_boxes_of_the_shipped_weights(tmp_path: Path) -> None:
    """In the simulated world, whose images are resized. Far down, boxes of nearly equal scores may change places."""
    theirs = load_detector("demo")
    export(theirs, "onnx", tmp_path)
    drive = (observed.frame for observed in observations([Drive(9500, 2.0, 2.0)]))
    compared(load_onnx_detector(tmp_path), theirs, drive, least_score=0.2)


def test_pixels_are_those_of_torch_but_for_single_grey_levels(two_stages: tuple[Detector, Path]) -> None:
    theirs, folder = two_stages
    ours = load_onnx_detector(folder)
    frame = next(frames(theirs.config))
    random = np.random.default_rng(0)
    noisy = tuple(
        camera and replace(camera, image=random.integers(0, 256, camera.image.shape, np.uint8), masks=MASKS)
        for camera in frame.cameras
    )
    frame = replace(frame, cameras=noisy)
    expected, actual = theirs.prepare(frame).images.numpy(), ours.prepare(frame).inputs["images"]
    difference = np.abs(expected - actual)
    assert difference.max() <= 2.001
    assert (difference > 0.001).mean() < 0.013
    assert (actual[0, 0] == 0).any()  # under the mask


def test_masks_keep_the_same_proposals_as_in_torch(two_stages: tuple[Detector, Path]) -> None:
    theirs, folder = two_stages
    frame = next(frames(theirs.config))
    width, height = theirs.config.image.source_size
    everything = (((0.0, 0.0), (width, 0.0), (width, height), (0.0, height)),)
    hidden = [camera and replace(camera, masks=everything) for camera in frame.cameras]
    expected, found = (
        detect(replace(frame, cameras=(frame.cameras[0], *hidden[1:]))).proposals
        for detect in (theirs, load_onnx_detector(folder))
    )
    unmasked = theirs(frame).proposals
    assert expected is not None and found is not None and unmasked is not None
    assert_same(found, expected)
    assert found.scores.tolist() != unmasked.scores.tolist()


def test_it_runs_without_torch(two_stages: tuple[Detector, Path]) -> None:
    _, folder = two_stages
    script = (
        blocker({"torch", "torchvision"})
        + f"""
from itertools import islice
from bevformer_ros.benchmarks.frames import frames
from bevformer_ros.inference.onnx_detector import load_onnx_detector
detector = load_onnx_detector({str(folder)!r})
detector.warm_up()
found = list(detector.replay(islice(frames(detector.config), 3)))
assert [len(boxes) > 0 for boxes in found] == 3 * [True]
assert "torch" not in sys.modules
"""
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_what_is_no_export_is_refused(two_stages: tuple[Detector, Path], tmp_path: Path) -> None:
    _, folder = two_stages
    with pytest.raises(
        ValueError, match=r"holds no model\.json, expected a folder that `bevformer-ros export --format onnx` wrote"
    ):
        load_onnx_detector(tmp_path)
    for name in ("model.json", "detect.onnx", "align.onnx"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(ValueError, match=r"encode\.onnx cannot be loaded by ONNX Runtime"):
        load_onnx_detector(tmp_path)
    (tmp_path / "encode.onnx").write_bytes((folder / "detect.onnx").read_bytes())
    with pytest.raises(ValueError, match=r"takes images of None, model\.json says \[1, 6, 3, 32, 96\]"):
        load_onnx_detector(tmp_path)


def test_cameras_are_those_of_the_export(two_stages: tuple[Detector, Path]) -> None:
    detector, folder = two_stages
    names = detector.config.cameras
    load_onnx_detector(folder, model_cameras={name: name for name in names})
    load_onnx_detector(folder, model_cameras={f"own_{name}": name for name in names})
    with pytest.raises(ValueError, match="write it again with `bevformer-ros export --rig`"):
        load_onnx_detector(folder, model_cameras={name: name for name in reversed(names)})
