"""Commands under Ctrl-C, SIGTERM, kill -9 and a full disk: a line, and nothing that looks complete."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

pytest.importorskip("rosbags", reason="needs rosbags: source .venv/bin/ros-activate")

from support import REPOSITORY, SMALLEST, wait_until

from bevformer_ros.ros.bag.files import BagReader

pytestmark = pytest.mark.integration

COMMAND = [sys.executable, "-m", "bevformer_ros"]
SIMULATE = [*COMMAND, "simulate", "--size", "160x90", "--rate", "4", "-o"]
TINY = REPOSITORY / "test" / "smallest_two_stage.yaml"


def limited(size: int) -> list[str]:
    """The command line under a limit for the size of a file, at which a write fails as on a full disk."""
    code = f"import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size})); "
    code += "runpy.run_module('bevformer_ros', run_name='__main__', alter_sys=True)"
    return [sys.executable, "-c", code]


@pytest.fixture(scope="module")
def drive(tmp_path_factory) -> Path:
    from bevformer_ros.commands.cli import main

    path = tmp_path_factory.mktemp("interruptions") / "drive"
    assert main([*SIMULATE[3:], str(path), "--seconds", "1.5"]) == 0
    return path


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_simulation_that_broke_off_is_made_again(number, status, tmp_path, start_process):
    bag = tmp_path / "bag"
    broken = start_process([*SIMULATE, bag, "--seconds", "20", "--size", "1600x900"])
    wait_until((tmp_path / "bag.partial").exists, "the bag's beginning")
    broken.signal(number)
    assert broken.wait() == status
    assert "Traceback" not in broken.output
    assert broken.output.splitlines()[-1] == (
        "bevformer-ros simulate: interrupted; give the same command again for what is left"
    )
    assert not bag.exists()
    whole = start_process([*SIMULATE, bag, "--seconds", "1"])
    assert whole.wait() == 0, whole.output
    assert [entry.name for entry in tmp_path.iterdir()] == ["bag"]
    with BagReader(bag) as reader:
        assert not reader.damage


def test_a_full_disk_is_a_line(drive, tmp_path, start_process):
    weights = tmp_path / "weights.safetensors"
    simulating = [*limited(300_000), *SIMULATE[3:], tmp_path / "bag", "--seconds", "20"]
    converting = [*limited(1000), "convert", _checkpoint(tmp_path), "-o", weights, "--model", TINY]
    drawing = [*limited(20_000), "draw", drive, "-o", tmp_path / "moment.png"]
    for words, line in (
        (simulating, f"{tmp_path / 'bag.partial'} cannot be written: File too large; what it holds so far can be read"),
        (converting, f"{weights}.partial cannot be written"),
        (drawing, f"File too large: '{tmp_path / 'moment.png.partial'}'"),
    ):
        process = start_process(words)
        assert process.wait() == 1, process.output
        assert line in process.output.splitlines()[-1]
        assert "Traceback" not in process.output
    left = {entry.name for entry in tmp_path.iterdir()} - {"given.safetensors"}
    assert left <= {"bag.partial", "weights.safetensors.partial", "moment.png.partial"}


def _checkpoint(folder: Path) -> Path:
    from bevformer_ros.config import load_yaml
    from bevformer_ros.model.checkpoint import save_checkpoint
    from bevformer_ros.model.config import ModelConfig
    from bevformer_ros.model.network import build_network

    config = load_yaml(ModelConfig, TINY)
    save_checkpoint(folder / "given.safetensors", build_network(config).state_dict(), config)
    return folder / "given.safetensors"


def test_where_nothing_can_be_written_there_is_a_line(drive, start_process):
    for words in (
        [*SIMULATE, "/proc/bag"],
        [*COMMAND, "replay", drive, "-o", "/proc/out", "--model", SMALLEST, "--device", "cpu"],
        [*COMMAND, "draw", drive, "-o", "/proc/moment.png"],
    ):
        process = start_process(words)
        assert process.wait() == 1, process.output
        assert "Traceback" not in process.output
        assert "/proc/" in process.output.splitlines()[-1]


def test_a_batch_that_broke_off_goes_on(drive, tmp_path, start_process):
    """Ctrl-C ends the processes that replay; what they have done is not done again."""
    bags = [drive, *(tmp_path / name for name in ("second", "third"))]
    for bag in bags[1:]:
        shutil.copytree(drive, bag)
    words = [*COMMAND, "replay", *bags, "-o", tmp_path / "out", "--model", SMALLEST, "--device", "cpu"]
    broken = start_process([*words, "--workers", "2"], OMP_NUM_THREADS="1")
    broken.wait_for_output(": done, 6 sets", timeout_s=120)
    assert broken.interrupt(timeout_s=30) == 130, broken.output
    assert "Traceback" not in broken.output
    again = start_process(words, OMP_NUM_THREADS="1")
    assert again.wait(timeout_s=120) == 0, again.output
    assert "was done already, 6 sets" in again.output
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == ["drive", "second", "third"]


def children_of(pid: int) -> set[int]:
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return {int(child) for file in files for child in file.read_text(encoding="ascii").split()}


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def training(tmp_path, start_process):
    """A run of many rounds that has done one, and the processes of its workers."""
    config = tmp_path / "training.yaml"
    config.write_text(
        f"model: {TINY}\nrounds: 1000\nclips: 1\nclip_frames: 2\n"
        "world: {seeds: [0, 2], frames: 2, image_width: 160}\n"
        "perspective: {size_ranges: [[-1, 48], [48, 96], [96, .inf]]}\noptimiser: {warm_up: 0}\n",
        encoding="utf-8",
    )
    process = start_process([*COMMAND, "train", "--config", config, "-o", tmp_path / "run", "--workers", "2"])
    wait_until((tmp_path / "run" / "metrics.csv").exists, "a round", timeout_s=120)
    workers = children_of(process.pid)
    assert len(workers) >= 2
    return process, workers


def test_killed_training_leaves_no_worker(training):
    process, workers = training
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: not any(map(is_alive, workers)), "the end of the workers", timeout_s=3)


def test_interrupted_training_is_a_line(training):
    process, workers = training
    assert process.interrupt(timeout_s=60) == 130, process.output
    assert "Traceback" not in process.output
    assert "bevformer-ros train: interrupted" in process.output.splitlines()[-1]
    wait_until(lambda: not any(map(is_alive, workers)), "the end of the workers")
