"""Which network the settings name, and what is said of one that cannot be loaded."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from exported_networks import detector_of
from support import SMALLEST

pytest.importorskip("onnxruntime")

from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.inference.export import export
from bevformer_ros.inference.onnx_detector import OnnxDetector
from bevformer_ros.inference.pipeline import Detector
from bevformer_ros.resources import DEFAULT_RIG, config_file
from bevformer_ros.ros.detector_loading import (
    detector_for,
    device_of,
    network_files,
    precision_of,
    require_loadable,
)
from bevformer_ros.ros.node.settings import Settings

RIG = load_yaml(RigConfig, config_file("rigs", DEFAULT_RIG))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("exported")
    export(detector_of(SMALLEST), "onnx", folder)
    return folder


def test_the_backend_is_chosen(exported: Path) -> None:
    assert isinstance(detector_for(Settings(model=str(SMALLEST), device="cpu"), RIG), Detector)
    settings = Settings(model=str(exported), backend="onnxruntime")
    assert isinstance(detector_for(settings, RIG), OnnxDetector)
    assert (device_of(settings), precision_of(settings)) == ("cpu", "float32")
    names = ["align.onnx", "detect.onnx", "encode.onnx", "model.json"]
    assert network_files(settings) == [exported / name for name in names]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"device": "cuda"}, "device is 'cuda', but the backend onnxruntime .* leave it auto, or set backend to torch"),
        ({"precision": "bfloat16"}, "precision is 'bfloat16', but the backend onnxruntime .* leave it auto"),
        ({"weights": "t1.pth"}, "weights is 't1.pth', but the backend onnxruntime .* leave it empty"),
        ({}, r"demo holds no model\.json, expected a folder that `bevformer-ros export --format onnx` wrote"),
    ],
)
def test_what_onnxruntime_does_not_do_is_refused(changed: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        require_loadable(Settings(backend="onnxruntime", **changed))


def test_a_backend_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ValueError, match="backend torch needs the Python module torch.*set backend to onnxruntime"):
        require_loadable(Settings())
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "bevformer_ros.inference.onnx_detector")
    with pytest.raises(ValueError, match="the backend onnxruntime needs the Python module onnxruntime: pip install"):
        require_loadable(Settings(backend="onnxruntime"))
