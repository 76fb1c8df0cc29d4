"""A report made of bags: a picture for every moment, and what the command refuses."""

from __future__ import annotations

import json
import sys

import cv2
import pytest

pytest.importorskip("vision_msgs.msg", reason="needs the ROS environment that `make test` makes")
pytest.importorskip("nuscenes", reason="needs nuscenes-devkit, which `make env` installs")

from support import SMALLEST

from bevformer_ros.commands.cli import main
from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.resources import DEFAULT_RIG, config_file
from bevformer_ros.ros.bag.simulated_drive import simulate
from bevformer_ros.simulation.drive import Drive


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    rig = load_yaml(RigConfig, config_file("rigs", DEFAULT_RIG))
    simulate(folder / "drive", rig, Drive(seed=1, seconds=2.0, rate=2.0, size=(160, 90)))
    words = ["--model", str(SMALLEST), "--device", "cpu", "--score-threshold", "0"]
    assert main(["replay", str(folder / "drive"), "-o", str(folder / "out"), *words]) == 0
    return folder / "out"


@pytest.mark.parametrize(("frames", "count"), [(300, 4), (2, 2)])
def test_report_of_a_replay(result, tmp_path, capsys, frames, count):
    folder = tmp_path / "report"
    assert main(["report", str(result), "-o", str(folder), "--frames", str(frames), "--width", "160"]) == 0
    assert "NDS" in capsys.readouterr().out
    text = (folder / "data.js").read_text(encoding="utf-8")
    data = json.loads(text.removeprefix("window.REPORT = ").rstrip().removesuffix(";"))
    assert "UNTRAINED" in data["warning"] and data["title"] == "smallest on drive"
    assert len(data["frames"]) == 4 and len(data["runs"][0]["timeline"]) == 4
    assert dict(data["runs"][0]["cards"])["sets processed"] == "4" and data["runs"][0]["processed"] == [True] * 4
    pictured = [frame for frame in data["frames"] if frame["views"]]
    assert len(pictured) == count
    for frame in pictured:
        assert [view["camera"] for view in frame["views"]][:2] == ["CAM_FRONT_LEFT", "CAM_FRONT"]
        assert all(cv2.imread(str(folder / view["picture"])).shape[:2] == (90, 160) for view in frame["views"])
    identities = [{row[-2] for row in frame["truths"]} for frame in data["frames"]]
    assert identities[0] & identities[1] and "" not in identities[0]
    visibilities = {row[-1] for frame in data["frames"] for row in frame["truths"]}
    assert len(visibilities) > 1 and visibilities <= {1, 2, 3, 4}
    assert {path.name for path in folder.iterdir()} > {
        "index.html",
        "report.js",
        "uPlot.LICENSE.txt",
        "data.js",
        "frames",
    }


def test_two_runs_side_by_side(result, tmp_path):
    words = [str(result), "--compare", str(result), "-o", str(tmp_path / "both"), "--frames", "1", "--width", "160"]
    assert main(["report", *words]) == 0
    text = (tmp_path / "both" / "data.js").read_text(encoding="utf-8")
    first, second = json.loads(text.removeprefix("window.REPORT = ").rstrip().removesuffix(";"))["runs"]
    assert first == second and len(first["boxes"]) == 4


@pytest.mark.integration
def test_a_report_on_a_full_disk_is_none(result, tmp_path, start_process, capsys):
    """The limit for the size of a file fails as a full disk does."""
    code = "import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); "
    code += "runpy.run_module('bevformer_ros', run_name='__main__', alter_sys=True)"
    folder, words = tmp_path / "report", ["report", result, "--width", "160", "-o"]
    broken = start_process([sys.executable, "-c", code, *words, folder])
    assert broken.wait() == 1, broken.output
    assert "Traceback" not in broken.output
    assert "bevformer-ros report: [Errno 27] File too large: " in broken.output.splitlines()[-1]
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.partial"]
    assert main([*map(str, words), str(folder)]) == 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["report"]


def test_what_the_command_refuses(result, tmp_path, capsys):
    (tmp_path / "there").mkdir()
    assert main(["report", str(result), "-o", str(tmp_path / "there")]) == 1
    assert "exists already" in capsys.readouterr().err
    assert main(["report", str(result), "-o", str(tmp_path / "new"), "--frames", "0"]) == 1
    assert "frames is 0, expected at least 1" in capsys.readouterr().err
