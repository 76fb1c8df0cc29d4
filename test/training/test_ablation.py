"""The ablation in miniature: what each arm is, what is written, what is not done twice."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from support import REPOSITORY

pytest.importorskip("nuscenes", reason="needs nuscenes-devkit, which `make env` installs")

from bevformer_ros.commands.cli import main
from bevformer_ros.config import load_yaml
from bevformer_ros.model.checkpoint import read_checkpoint
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.model.network import build_network
from bevformer_ros.resources import config_file
from bevformer_ros.simulation.seeds import EVALUATION_SEEDS, require_training_seeds
from bevformer_ros.training import ablation
from bevformer_ros.training.ablation import ARMS, IMAGE_PART, Study, final_losses, table
from bevformer_ros.training.config import PerspectiveLossConfig, TrainingConfig, WorldDataConfig
from bevformer_ros.training.network_with_losses import NetworkWithLosses
from bevformer_ros.training.trainer import METRICS, WEIGHTS

pytestmark = pytest.mark.own_process

MODEL = REPOSITORY / "test" / "smallest_two_stage.yaml"
CONFIG = TrainingConfig(
    str(MODEL),
    WorldDataConfig((0, 2), frames=2, image_width=160),
    rounds=2,
    clips=1,
    clip_frames=2,
    perspective=PerspectiveLossConfig(size_ranges=((-1, 20), (20, 40), (40, 1e9))),
)


def study(folder, **changes):
    settings = {"worlds": range(9000, 9001), "seconds": 1.0, "workers": 0, **changes}
    return Study(CONFIG, load_yaml(ModelConfig, MODEL), folder, folder / "drives", **settings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With the perspective arm of seed 1 and the two-stage arm of seeds 0 and 1 in it."""
    folder = tmp_path_factory.mktemp("ablation")
    for arm, seed in (("perspective", 1), ("two_stage", 0), ("two_stage", 1)):
        study(folder).run(arm, seed)
    return folder


SECOND_STAGE = {"bev_encoder", "decoder", "queries"}


@pytest.mark.parametrize(
    ("arm", "taught", "two_stage", "frames"),
    [
        ("bev", {"backbone", "neck", *SECOND_STAGE}, False, (0,)),
        ("perspective", {"backbone", "neck", "perspective_head"}, False, (0,)),
        ("both", {"backbone", "neck", "perspective_head", *SECOND_STAGE}, False, (0,)),
        ("one_stage", SECOND_STAGE, False, (0,)),
        ("two_stage", {*SECOND_STAGE, "proposal_queries"}, True, (0,)),
        ("residual", {*SECOND_STAGE, "proposal_queries"}, True, (0,)),
        ("frames_2", {*SECOND_STAGE, "proposal_queries", "temporal_fusion"}, True, (-1, 0)),
        ("frames_4", {*SECOND_STAGE, "proposal_queries", "temporal_fusion"}, True, (-3, -2, -1, 0)),
    ],
)
def test_arms_teach_what_they_say(arm, taught, two_stage, frames):
    config, model = ARMS[arm].configure(CONFIG, load_yaml(ModelConfig, MODEL))
    assert (model.two_stage, model.temporal.frames) == (two_stage, frames)
    network = NetworkWithLosses(build_network(model), config).network
    parts = {name.partition(".")[0] for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert parts == taught
    assert (model.proposals is not None) == (two_stage or arm == "perspective")
    assert (config.clips * config.clip_frames, config.clip_frames == 1) == (2, ARMS[arm].after is None)


def test_all_arms_are_tested_above():
    names = ["bev", "perspective", "both", "one_stage", "two_stage", "residual", "frames_2", "frames_4"]
    assert list(ARMS) == names


def test_an_arm_takes_over_the_image_part_of_another(folder):
    """The perspective arm of its seed was run for it, and what it learned of images is still there at the end."""
    assert (folder / "perspective_seed0.json").is_file()
    first, second = (read_checkpoint(folder / f"{arm}_seed0" / WEIGHTS) for arm in ("perspective", "two_stage"))
    taken = [name for name in second.weights if name.partition(".")[0] in IMAGE_PART]
    assert len(taken) > 50
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in taken)


def test_a_run_leaves_one_file_and_is_not_done_again(folder, monkeypatch):
    written = json.loads((folder / "two_stage_seed1.json").read_text(encoding="utf-8"))
    assert (written["arm"], written["seed"], written["worlds"]) == ("two_stage", 1, [9000, 9001])
    assert 0 <= written["scores"]["nds"] <= 1
    with (folder / "two_stage_seed1" / METRICS).open(encoding="utf-8") as file:
        last = list(csv.DictReader(file))[-1]
    assert written["final_losses"]["bev_boxes"] == float(last["bev_boxes"])
    assert written["training_seconds"] > 0 and "CPU threads" in written["machine"]
    monkeypatch.setattr(ablation, "Trainer", None)
    assert study(folder).run("two_stage", 1) == written


def test_results_of_other_conditions_are_refused(folder):
    with pytest.raises(ValueError, match=r"two_stage_seed1.json is of another worlds; remove it, or name"):
        study(folder, worlds=range(9000, 9002)).run("two_stage", 1)
    longer = replace(study(folder), config=replace(CONFIG, rounds=3))
    with pytest.raises(ValueError, match="two_stage_seed1.json is of another training"):
        longer.run("two_stage", 1)


def test_the_table_has_the_runs_that_there_are(folder):
    found = study(folder).results([0, 1, 2])
    assert {arm: len(entries) for arm, entries in found.items()} == {"perspective": 2, "two_stage": 2}
    assert study(folder).results([7]) == {}


@pytest.mark.parametrize(
    ("maps", "cell"), [([0.2], "| 0.200 |"), ([0.1, 0.3], "| 0.200 ± 0.141 |"), ([0.1, 0.2, 0.3], "| 0.200 ± 0.100 |")]
)
def test_the_table_gives_mean_and_standard_deviation(maps, cell):
    scores = {"nds": 0.4, "errors": {"mATE": 0.5, "mAVE": 1.25}}
    losses = {"bev_classes": 1.5, "bev_boxes": 7.0}
    runs = [
        {"scores": {"mean_ap": value, **scores}, "training_seconds": 90.0, "final_losses": losses} for value in maps
    ]
    lines = table({"both": runs}).splitlines()
    assert lines[0] == "| arm | runs | mAP | NDS | mATE | mAVE | class loss | box loss | minutes |"
    assert lines[2].startswith(f"| both | {len(maps)} {cell} 0.400") and lines[2].endswith("| 1.5 |")
    assert "| 1.500" in lines[2] and "| 7.000" in lines[2]
    without = table({"perspective": [{**run, "final_losses": {"perspective_classes": 0.3}} for run in runs]})
    assert [cell.strip() for cell in without.splitlines()[2].split("|")][7:9] == ["", ""]


def test_losses_at_the_end_are_means_over_the_last_tenth():
    metrics = {"round": np.arange(20.0), "bev_boxes": np.arange(20.0), "perspective_depths": np.full(20, 2.0)}
    assert final_losses(metrics) == {"bev_boxes": 18.5, "perspective_depths": 2.0}


def test_what_cannot_be_compared_is_refused(tmp_path):
    model = load_yaml(ModelConfig, MODEL)
    with pytest.raises(ValueError, match="must name `world`"):
        Study(replace(CONFIG, world=None), model, tmp_path, tmp_path, range(1))
    with pytest.raises(ValueError, match="needs both losses, head and proposals"):
        Study(CONFIG, replace(model, proposals=None, two_stage=False), tmp_path, tmp_path, range(1))
    with pytest.raises(ValueError, match="worlds is 0"):
        Study(CONFIG, model, tmp_path, tmp_path, range(0))


def test_the_shipped_configuration_is_one_of_all_parts(tmp_path):
    config = load_yaml(TrainingConfig, config_file("training", "ablation"))
    model = load_yaml(ModelConfig, config_file("models", config.model))
    for arm in ARMS.values():
        arm.configure(config, model)
    drives = Study(config, model, tmp_path, tmp_path, EVALUATION_SEEDS[:2]).drives()
    assert [(drive.seed, drive.size) for drive in drives] == [(9000, (320, 180)), (9001, (320, 180))]
    require_training_seeds(range(*config.world.seeds))


def test_command(tmp_path, capsys):
    """From the command line, with a configuration of one's own."""
    text = f"model: {MODEL}\nworld: {{seeds: [0, 1], frames: 2, image_width: 160}}\nclips: 1\nclip_frames: 1\n"
    text += "perspective: {size_ranges: [[-1, 20], [20, 40], [40, .inf]]}\n"
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    words = ["--output", str(tmp_path / "out"), "--config", str(tmp_path / "mine.yaml"), "--arms", "bev", "perspective"]
    words += ["--seeds", "0", "--rounds", "1", "--worlds", "1", "--seconds", "0.5", "--workers", "0"]
    assert main(["ablate", *words]) == 0
    printed = capsys.readouterr().out
    written = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert written in printed + "\n"
    assert [line.split("|")[1].strip() for line in written.splitlines()[2:]] == ["bev", "perspective"]
    assert cv2.imread(str(tmp_path / "out" / "convergence.png")) is not None
