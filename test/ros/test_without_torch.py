"""The node and the replay with a network that was exported, where torch cannot be imported: processes, real DDS."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("vision_msgs.msg", reason="needs the ROS environment that `make test` makes")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from exported_networks import detector_of, without
from rig_publisher import START_TIMEOUT_S, RigPublisher
from support import REPOSITORY, SMALLEST, detector_command

from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.inference.export import export
from bevformer_ros.ros import topics
from bevformer_ros.ros.bag.files import BagReader, deserialize
from bevformer_ros.ros.bag.simulated_drive import simulate
from bevformer_ros.simulation.drive import Drive

pytestmark = pytest.mark.integration

RIG = load_yaml(RigConfig, REPOSITORY / "config" / "rigs" / "nuscenes.yaml")
DRIVE = Drive(seed=3, seconds=2.0, rate=2.0, size=(160, 90))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    export(detector_of(SMALLEST), "onnx", folder)
    return folder


@pytest.fixture
def no_torch(tmp_path):
    environment = without("torch", tmp_path)
    done = subprocess.run([sys.executable, "-c", "import torch"], env=environment, capture_output=True, text=True)
    assert "torch is blocked" in done.stderr
    return environment


def test_the_node_publishes_boxes(exported, no_torch, start_process):
    node = start_process(detector_command(model=exported, backend="onnxruntime"), **no_torch)
    with RigPublisher(RIG, outputs=["detections", "status"]) as rig:
        rig.warm_up()
        for index in range(7):
            rig.publish_next()
            status = rig.wait_for("status", index + 1)[-1]
        arrays = rig.wait_for("detections", 7)
    assert all(array.detections for array in arrays)
    assert (status.sets_dropped, status.history_depth) == ([], 1)
    assert node.interrupt() == 0
    assert "detecting with smallest in float32 on cpu" in node.output
    assert "Traceback" not in node.output


def test_the_backend_torch_says_what_is_missing(no_torch, start_process):
    node = start_process(detector_command(), **no_torch)
    assert node.wait(START_TIMEOUT_S) == 1
    assert "cannot configure: the backend torch needs the Python module torch" in node.output
    assert "Traceback" not in node.output


def test_a_bag_is_replayed(exported, no_torch, start_process, tmp_path):
    drive, result = tmp_path / "drive", tmp_path / "result"
    simulate(drive, RIG, DRIVE)
    words = ["replay", drive, "--output", result, "--rig", "nuscenes", "--model", exported, "--score-threshold", "0"]
    replay = start_process([sys.executable, "-m", "bevformer_ros", *words, "--backend", "onnxruntime"], **no_torch)
    assert replay.wait() == 0, replay.output
    with BagReader(result) as reader:
        arrays = [deserialize(entry) for entry in reader.messages([topics.resolved(topics.DETECTIONS)])]
    assert len(arrays) == len(DRIVE.reference_stamps)
    assert all(array.detections for array in arrays)
