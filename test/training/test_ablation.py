"""The ablation in miniature: what each arm is, what is written, what is not done twice."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
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
from bevformer_ros.training.ablation import STUDIES, Study, write_summary
from bevformer_ros.training.ablation_table import Run, scores_table
from bevformer_ros.training.config import ENCODING_PARTS, PerspectiveLossConfig, TrainingConfig, WorldDataConfig
from bevformer_ros.training.network_with_losses import NetworkWithLosses
from bevformer_ros.training.trainer import WEIGHTS

pytestmark = pytest.mark.own_process

MODEL = load_yaml(ModelConfig, REPOSITORY / "test" / "smallest_two_stage.yaml")
CONFIG = TrainingConfig(
    MODEL.name,
    WorldDataConfig((0, 2), frames=2, image_width=160),
    rounds=2,
    clips=1,
    clip_frames=2,
    perspective=PerspectiveLossConfig(size_ranges=((-1, 20), (20, 40), (40, 1e9))),
)
SECOND_STAGE_CONFIG = replace(CONFIG, perspective=None, frozen=ENCODING_PARTS, keep_encodings=True)
WORLDS = range(9000, 9002)


def second_stage(folder, **changes):
    weights = build_network(MODEL).state_dict() if "weights" not in changes else changes.pop("weights")
    settings = {"worlds": WORLDS, "seconds": 1.0, "workers": 0, **changes}
    arms = STUDIES["second_stage"]
    return Study(arms, SECOND_STAGE_CONFIG, MODEL, weights, folder, folder / "drives", **settings)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study with two arms done, and the weights that they share."""
    torch.manual_seed(3)
    study = second_stage(tmp_path_factory.mktemp("ablation"))
    for arm in ("one_stage", "two_stage"):
        study.run(arm, 0)
    return study


OF_BEV = {"bev_encoder", "decoder", "queries"}
LEARNED = {"decoder", "queries"}


@pytest.mark.parametrize(
    ("study", "arm", "taught", "frames"),
    [
        ("perspective", "bev", {"backbone", "neck", *OF_BEV}, (0,)),
        ("perspective", "perspective", {"backbone", "neck", "perspective_head"}, (0,)),
        ("perspective", "both", {"backbone", "neck", "perspective_head", *OF_BEV}, (0,)),
        ("second_stage", "one_stage", LEARNED, (0,)),
        ("second_stage", "two_stage", {*LEARNED, "proposal_queries"}, (0,)),
        ("second_stage", "residual", {*LEARNED, "proposal_queries"}, (0,)),
        ("second_stage", "frames_2", {*LEARNED, "proposal_queries", "temporal_fusion"}, (-1, 0)),
        ("second_stage", "frames_4", {*LEARNED, "proposal_queries", "temporal_fusion"}, (-3, -2, -1, 0)),
        (
            "second_stage",
            "on_bev_map",
            {*LEARNED, "proposal_queries", "temporal_fusion", "proposal_map"},
            (-3, -2, -1, 0),
        ),
    ],
)
def test_arms_teach_what_they_say(study, arm, taught, frames):
    common = CONFIG if study == "perspective" else SECOND_STAGE_CONFIG
    whole = replace(MODEL, two_stage=study == "second_stage")
    config, model = STUDIES[study][arm].configure(common, whole)
    assert model.temporal.frames == frames
    network = NetworkWithLosses(build_network(model), config).network
    parts = {name.partition(".")[0] for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert parts == taught


def test_every_decoder_of_the_second_study_has_as_many_queries():
    counts = set()
    for arm in STUDIES["second_stage"].values():
        _, model = arm.configure(SECOND_STAGE_CONFIG, MODEL)
        counts.add(model.decoder.queries + (model.proposals.count if model.two_stage else 0))
    assert counts == {30}


def test_arms_are_compared_with_arms_of_their_study():
    for arms in STUDIES.values():
        assert {arm.than for arm in arms.values()} - {None} <= arms.keys()


def test_frozen_parts_are_those_of_the_weights_and_encoded_once(finished):
    learned = read_checkpoint(finished.directory("two_stage", 0) / WEIGHTS).weights
    frozen = [name for name in learned if name.partition(".")[0] in ENCODING_PARTS]
    assert len(frozen) > 50
    assert all(torch.equal(learned[name], finished.weights[name]) for name in frozen)
    assert 0 < len(finished._encodings) <= 4, "two drives of two frames, for both arms together"
    assert all(kept.proposals is not None for kept in finished._encodings._kept.values())


def test_a_run_leaves_its_result_and_is_not_done_again(finished, monkeypatch):
    written = json.loads(finished.result_file("two_stage", 0).read_text(encoding="utf-8"))
    assert (written["arm"], written["seed"], written["worlds"]) == ("two_stage", 0, [9000, 9002])
    assert written["training_seconds"] > 0 and "CPU threads" in written["machine"]
    monkeypatch.setattr(ablation, "Trainer", None)
    run = finished.run("two_stage", 0)
    assert run.result == written
    assert list(run.scenes) == ["9000", "9001"]
    assert all(sample.token.count(scene) for scene, samples in run.scenes.items() for sample in samples)


def test_results_of_other_conditions_are_refused(finished):
    longer = replace(finished, config=replace(SECOND_STAGE_CONFIG, rounds=3))
    with pytest.raises(ValueError, match="two_stage_seed0.json is of another training; remove it, or name"):
        longer.run("two_stage", 0)


def test_the_summary_has_scores_differences_and_a_picture(finished):
    text = write_summary(finished, [0])
    assert (finished.out / "table.md").read_text(encoding="utf-8") == text + "\n"
    assert "| two_stage | 1 |" in text and "| two_stage - one_stage | " in text
    assert cv2.imread(str(finished.out / "convergence.png")) is not None


@pytest.mark.parametrize(("maps", "cell"), [([0.2], "| 0.200 |"), ([0.1, 0.3], "| 0.200 ± 0.141 |")])
def test_the_table_gives_mean_and_standard_deviation(maps, cell):
    classes = {"car": {"truths": 96, "ap": 0.5}, "bus": {"truths": 4, "ap": 0.1}}
    errors = {"mATE": 0.5, "mAOE": 0.25, "mAVE": 1.25}
    runs = {}
    for seed, value in enumerate(maps):
        scores = {"mean_ap": value, "nds": 0.4, "errors": errors, "classes": classes}
        runs[seed] = {"both": Run({"scores": scores, "training_seconds": 90.0}, {})}
    table = scores_table(runs)
    assert f"| both | {len(maps)} {cell} 0.500" in table
    assert table.endswith("frequent: mAP of car")


def test_what_cannot_be_compared_is_refused(tmp_path):
    def study(config, model=MODEL, worlds=WORLDS):
        return Study(STUDIES["perspective"], config, model, None, tmp_path, tmp_path, worlds)

    with pytest.raises(ValueError, match="must name `world`"):
        study(replace(CONFIG, world=None))
    with pytest.raises(ValueError, match="needs the decoder's loss, and proposals"):
        study(CONFIG, replace(MODEL, proposals=None, two_stage=False))
    with pytest.raises(ValueError, match="worlds is 1, expected at least 2"):
        study(CONFIG, worlds=range(1))
    with pytest.raises(ValueError, match="but perspective is null"):
        study(replace(CONFIG, perspective=None))
    with pytest.raises(ValueError, match="bev_encoder are frozen: name the weights"):
        second_stage(tmp_path, weights=None)


@pytest.mark.parametrize("name", STUDIES)
def test_the_shipped_configurations_have_all_parts(name, tmp_path):
    config = load_yaml(TrainingConfig, config_file("training", f"ablation_{name}"))
    model = load_yaml(ModelConfig, config_file("models", config.model))
    for arm in STUDIES[name].values():
        arm.configure(config, model)
    study = Study(STUDIES[name], config, model, {}, tmp_path, tmp_path, EVALUATION_SEEDS[:2])
    assert [(drive.seed, drive.size) for drive in study.drives()] == [(9000, (800, 450)), (9001, (800, 450))]
    require_training_seeds(range(*config.world.seeds))


def test_command(tmp_path, capsys):
    """From the command line, with a configuration of one's own."""
    model = REPOSITORY / "test" / "smallest_two_stage.yaml"
    text = f"model: {model}\nworld: {{seeds: [0, 1], frames: 2, image_width: 160}}\nclips: 1\nclip_frames: 1\n"
    text += "perspective: {size_ranges: [[-1, 20], [20, 40], [40, .inf]]}\n"
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    words = ["ablate", "--study", "perspective", "--output", str(tmp_path / "out")]
    words += ["--config", str(tmp_path / "mine.yaml"), "--rounds", "1", "--worlds", "2", "--seconds", "0.5"]
    assert main([*words, "--workers", "0", "--arms", "bev", "perspective"]) == 0
    written = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert written in capsys.readouterr().out + "\n"
    assert [line.split("|")[1].strip() for line in written.splitlines()[2:4]] == ["bev", "perspective"]
    assert main([*words, "--arms", "residual"]) != 0
    assert "study perspective has no arm residual; it has bev, perspective, both" in capsys.readouterr().err
