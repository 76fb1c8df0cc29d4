"""The training loop: resuming, gradients, what the losses teach, several processes, overfitting."""

from __future__ import annotations

import csv
import math
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from drives import NAMES, Drives

from bevformer_ros.model.checkpoint import read_checkpoint
from bevformer_ros.model.config import (
    NUSCENES_CAMERAS,
    BackboneConfig,
    BevGridConfig,
    DecoderConfig,
    EncoderConfig,
    ImageConfig,
    ModelConfig,
    PerspectiveHeadConfig,
    ProposalConfig,
    TemporalConfig,
)
from bevformer_ros.model.network import build_network
from bevformer_ros.training.config import (
    ENCODING_PARTS,
    AugmentationConfig,
    HeldOutConfig,
    OptimiserConfig,
    PerspectiveLossConfig,
    TrainingConfig,
    WorldDataConfig,
)
from bevformer_ros.training.trainer import CHECKPOINT, METRICS, WEIGHTS, Trainer, learning_rate_share
from bevformer_ros.training.world_dataset import WorldDataset

pytestmark = pytest.mark.own_process

MODEL = ModelConfig(
    "test",
    ImageConfig(source_size=(160, 90), crop=(0, 26, 160, 90), height=64),
    cameras=NAMES,
    channels=16,
    backbone=BackboneConfig(18, 8),
    pyramid_levels=3,
    bev=BevGridConfig(10, 10),
    encoder=EncoderConfig(layers=1, heads=2, hidden_channels=16, image_levels=3, image_points=4),
    temporal=TemporalConfig((-1, 0), mode="warp", channels=16, blocks=1),
    decoder=DecoderConfig(layers=1, heads=2, hidden_channels=16, queries=12),
    perspective=PerspectiveHeadConfig((8, 16, 32), 1, (30, 15, 8), (15, 8, 5)),
    proposals=ProposalConfig(candidates_per_level=5, boxes_per_image=4, count=6),
    two_stage=True,
    max_detections=20,
)
CONFIG = TrainingConfig(
    "test",
    rounds=4,
    clips=2,
    clip_frames=2,
    perspective=PerspectiveLossConfig(size_ranges=((-1, 48), (48, 96), (96, math.inf))),
    augmentation=AugmentationConfig(mirror=0.5, turn=0.3),
    optimiser=OptimiserConfig(warm_up=2, ema_decay=0.5),
)
DRIVES = Drives([3, 3, 3])


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path) -> None:
    Trainer(CONFIG, MODEL, DRIVES).run(tmp_path / "whole", workers=0)
    interrupted = Trainer(CONFIG, MODEL, DRIVES)
    for batches in list(interrupted._loader(0))[:2]:
        interrupted.train_round(batches)
    (tmp_path / "parts").mkdir()
    interrupted.save(tmp_path / "parts")
    resumed = Trainer(replace(CONFIG, seed=0), MODEL, DRIVES)
    resumed.run(tmp_path / "parts", workers=0)
    assert resumed.round == 4
    whole, parts = (read_checkpoint(tmp_path / name / WEIGHTS).weights for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    states = [torch.load(tmp_path / name / CHECKPOINT, weights_only=True)["network"] for name in ("whole", "parts")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_rounds_that_are_done_again_stand_in_the_metrics_once(tmp_path: Path) -> None:
    """The run was killed in its third round, in the middle of a line; its last checkpoint is of the second."""
    Trainer(CONFIG, MODEL, DRIVES).run(tmp_path / "whole", workers=0)
    parts = tmp_path / "parts"
    parts.mkdir()
    interrupted = Trainer(CONFIG, MODEL, DRIVES)
    for batches in list(interrupted._loader(0))[:2]:
        interrupted.train_round(batches)
    interrupted.save(parts)
    whole = (tmp_path / "whole" / METRICS).read_text(encoding="utf-8").splitlines(keepends=True)
    (parts / METRICS).write_text("".join(whole[:4]) + whole[4][:5], encoding="utf-8")
    Trainer(CONFIG, MODEL, DRIVES).run(parts, workers=0)
    with (parts / METRICS).open(encoding="utf-8") as file:
        assert [row["round"] for row in csv.DictReader(file)] == ["1", "2", "3", "4"]


def test_others_may_read_what_a_run_leaves(tmp_path: Path) -> None:
    """As the umask has it."""
    Trainer(CONFIG, MODEL, DRIVES).save(tmp_path)
    (tmp_path / "usual").touch()
    modes = {file.name: file.stat().st_mode for file in tmp_path.iterdir()}
    assert modes[CHECKPOINT] == modes[WEIGHTS] == modes["usual"]


def test_a_run_leaves_metrics_and_weights_that_load(tmp_path: Path) -> None:
    Trainer(CONFIG, MODEL, DRIVES).run(tmp_path, workers=1)
    with (tmp_path / METRICS).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["round"] for row in rows] == ["1", "2", "3", "4"]
    assert all(math.isfinite(float(value)) for row in rows for value in row.values())
    assert {"bev_classes", "bev_boxes", "perspective_classes", "perspective_depths", "gradient_norm"} < set(rows[0])
    checkpoint = read_checkpoint(tmp_path / WEIGHTS)
    assert checkpoint.config == MODEL


def test_tensorboard_reads_what_the_table_holds_and_pictures_of_held_out_detections(tmp_path: Path) -> None:
    """The second round was done before an interruption, and is done again."""
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="needs tensorboard, which `make env` installs",
        exc_type=ImportError,
    )
    model = replace(MODEL, cameras=NUSCENES_CAMERAS)
    config = replace(CONFIG, rounds=3, held_out=HeldOutConfig((9500, 9501), seconds=1.0, every=2))
    world = WorldDataset(WorldDataConfig((3, 5), frames=2, image_width=160), 0.5, tmp_path / "drives")
    Trainer(replace(config, rounds=2), model, world).run(tmp_path, workers=0, tensorboard=True)
    older = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    torch.save({**older, "round": 1}, tmp_path / CHECKPOINT)
    Trainer(config, model, world).run(tmp_path, workers=0, tensorboard=True)

    events = reader.EventAccumulator(str(tmp_path)).Reload()
    curves = {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}
    with (tmp_path / METRICS).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [step for step, _ in curves["held_out_mAP"]] == [2, 3]
    for name in rows[0]:
        steps, values = zip(*curves.pop(name), strict=True)
        told = [(int(row["round"]), float(row[name])) for row in rows if row[name] != "nan"]
        assert steps == tuple(step for step, _ in told), name
        assert values == pytest.approx([value for _, value in told], rel=1e-5), name
    assert curves == {}
    pictures = events.Images("held_out")
    assert [event.step for event in pictures] == [2, 3]
    image = cv2.imdecode(np.frombuffer(pictures[-1].encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    height, bars = 2 * 225, 38 + 34  # two rows of three views of 400 x 225, the square view from above beside them
    assert image.shape == (pictures[-1].height, pictures[-1].width, 3) == (height + bars, 3 * 400 + height, 3)
    blue, _, red = image[70, 600]
    assert blue > red  # the sky above CAM_FRONT


def test_without_tensorboard_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match="pip install tensorboard"):
        Trainer(CONFIG, MODEL, DRIVES).run(tmp_path, tensorboard=True)


def test_a_run_starts_from_the_weights_that_it_is_given_and_goes_on_from_its_own(tmp_path: Path) -> None:
    given = build_network(MODEL).state_dict()
    trainer = Trainer(CONFIG, MODEL, DRIVES, weights=given)
    for state in (trainer.trained.network.state_dict(), trainer.averaged_weights()):
        assert all(torch.equal(state[name], given[name]) for name in given)
    trainer.train_round(next(trainer._loader(0)))
    trainer.save(tmp_path)
    resumed = Trainer(CONFIG, MODEL, DRIVES, weights=given)
    resumed.restore(tmp_path / CHECKPOINT)
    learned = trainer.averaged_weights()
    assert all(torch.equal(value, learned[name]) for name, value in resumed.averaged_weights().items())


def test_accumulated_gradients_are_those_of_a_batch_that_holds_all_samples() -> None:
    """Divisors of losses and statistics of batch norms are each batch's own: so it is twice the same drive. Without the
    backbone, whose batch norms over a handful of pixels blow up rounding errors."""
    still = replace(CONFIG, augmentation=AugmentationConfig(), precision="float32", frozen=("backbone",))
    gradients = []
    for clips, accumulate in ((2, 1), (1, 2)):
        config = replace(still, clips=clips, accumulate=accumulate)
        trainer = Trainer(config, replace(MODEL, dropout=0.0), Drives([2]))
        (first, _) = next(trainer._loader(0))
        assert [len(batch.stamps_ns) for batch in first] == [clips] * accumulate
        trainer.train_round([first])
        learning = {name: each for name, each in trainer.trained.network.named_parameters() if each.requires_grad}
        gradients.append({name: parameter.grad for name, parameter in learning.items()})
    for name, whole in gradients[0].items():
        assert (gradients[1][name] - whole).norm() <= 1e-3 * whole.norm(), name


FROZEN = replace(
    CONFIG,
    frozen=ENCODING_PARTS,
    perspective=None,
    augmentation=AugmentationConfig(mirror=0.5),
    precision="float32",
)


def test_kept_encodings_change_nothing_but_the_time() -> None:
    proposals = replace(MODEL.proposals, on_bev_map=True, score_threshold=0.0, minimum_score=0.0)
    model = replace(MODEL, dropout=0.0, proposals=proposals)
    learned = []
    for keep in (False, True):
        trainer = Trainer(replace(FROZEN, keep_encodings=keep), model, DRIVES)
        for steps in trainer._loader(0):
            trainer.train_round(steps)
        learned.append(trainer.trained.network.state_dict())
    for name, value in learned[0].items():
        torch.testing.assert_close(learned[1][name], value, msg=name)
    kept = trainer.trained._kept
    assert kept is not None and 0 < len(kept) <= 2 * 3 * 3  # plain and mirrored, three drives of three frames


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frozen": ("backbone", "neck")}, "perspective_head, bev_encoder frozen, got frozen backbone, neck"),
        ({"perspective": CONFIG.perspective}, "needs perspective to be null"),
        ({"augmentation": AugmentationConfig(mirror=0.5, gain=(0.8, 1.2))}, "no augmentation but mirror"),
    ],
)
def test_encodings_that_would_change_are_not_kept(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(FROZEN, keep_encodings=True, **changes)


def test_a_backbone_too_narrow_for_every_processor_is_refused() -> None:
    """Its backward pass in channels last corrupts memory in oneDNN's AVX2 kernel (torch 2.13)."""
    with pytest.raises(ValueError, match="backbone.base_channels 7, training needs at least 8"):
        Trainer(CONFIG, replace(MODEL, backbone=BackboneConfig(18, 7)), DRIVES)


def test_weights_of_another_model_to_start_from_are_refused() -> None:
    given = build_network(replace(MODEL, channels=32)).state_dict()
    with pytest.raises(ValueError, match="shape"):
        Trainer(CONFIG, MODEL, DRIVES, weights=given)


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    Trainer(CONFIG, MODEL, DRIVES).run(tmp_path, workers=0)
    metrics = (tmp_path / METRICS).read_text(encoding="utf-8")
    Trainer(CONFIG, MODEL, DRIVES).run(tmp_path, workers=0)
    assert (tmp_path / METRICS).read_text(encoding="utf-8") == metrics


def test_the_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    Trainer(CONFIG, MODEL, DRIVES).save(tmp_path)
    other = replace(MODEL, channels=32)
    with pytest.raises(ValueError, match="of another model"):
        Trainer(CONFIG, other, DRIVES).restore(tmp_path / CHECKPOINT)


@pytest.mark.parametrize(
    ("model", "config", "frozen"),
    [
        (MODEL, CONFIG, set()),
        (MODEL, replace(CONFIG, precision="bfloat16"), set()),
        (replace(MODEL, temporal=replace(MODEL.temporal, mode="reencode")), CONFIG, set()),
        (replace(MODEL, two_stage=False), replace(CONFIG, perspective=None), {"perspective_head"}),
        (
            MODEL,
            replace(CONFIG, bev=None),
            {"bev_encoder", "temporal_fusion", "decoder", "queries", "proposal_queries"},
        ),
        (replace(MODEL, decoder=replace(MODEL.decoder, groups=3)), CONFIG, set()),
    ],
    ids=["two-stage", "bfloat16", "reencode", "BEV loss only", "perspective loss only", "groups"],
)
def test_one_backward_pass_reaches_every_trainable_parameter(
    model: ModelConfig, config: TrainingConfig, frozen: set[str]
) -> None:
    trainer = Trainer(config, model, DRIVES)
    trainer.train_round(next(trainer._loader(0)))
    for name, parameter in trainer.trained.network.named_parameters():
        if name.split(".")[0] in frozen:
            assert not parameter.requires_grad and parameter.grad is None, name
        else:
            assert parameter.grad is not None, name


def test_frozen_parts_stay_as_they_are_statistics_too() -> None:
    trainer = Trainer(replace(CONFIG, frozen=("backbone", "neck.laterals")), MODEL, DRIVES)
    before = {name: value.clone() for name, value in trainer.trained.network.state_dict().items()}
    trainer.train_round(next(trainer._loader(0)))
    after = trainer.trained.network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not any(name.startswith(("backbone.", "neck.laterals.")) for name in changed)
    assert any(name.startswith("neck.outputs.") for name in changed)


def test_a_frozen_part_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="'backbon', which is no part of the network; there are backbone, neck"):
        Trainer(replace(CONFIG, frozen=("backbon",)), MODEL, DRIVES)


def test_held_out_scores_come_with_their_rounds(tmp_path: Path) -> None:
    model = replace(MODEL, cameras=NUSCENES_CAMERAS)
    config = replace(CONFIG, rounds=3, held_out=HeldOutConfig((9500, 9501), seconds=0.5, every=2))
    world = WorldDataset(WorldDataConfig((3, 5), frames=2, image_width=160), 0.5, tmp_path / "drives")
    Trainer(config, model, world).run(tmp_path, workers=0)
    with (tmp_path / METRICS).open(encoding="utf-8") as file:
        scores = [float(row["held_out_mAP"]) for row in csv.DictReader(file)]
    assert [math.isnan(score) for score in scores] == [True, False, False]


def test_a_loss_without_its_head_is_refused() -> None:
    with pytest.raises(ValueError, match="has no perspective head"):
        Trainer(CONFIG, replace(MODEL, perspective=None, proposals=None, two_stage=False), DRIVES)


def test_size_ranges_for_other_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="size_ranges has 5 entries, model test 3 levels"):
        Trainer(replace(CONFIG, perspective=PerspectiveLossConfig()), MODEL, DRIVES)


def test_a_loss_that_is_no_number_stops_the_run() -> None:
    trainer = Trainer(CONFIG, MODEL, DRIVES)
    with torch.no_grad():
        next(trainer.trained.network.decoder.parameters()).fill_(math.nan)
    with pytest.raises(FloatingPointError, match="round 1"):
        trainer.train_round(next(trainer._loader(0)))


@pytest.mark.parametrize(("step", "share"), [(0, 0.25), (3, 1.0), (4, 1.0), (12, 0.5), (20, 0.0), (25, 0.0)])
def test_learning_rate_rises_in_a_line_and_falls_along_a_cosine(step: int, share: float) -> None:
    assert learning_rate_share(step, 20, OptimiserConfig(warm_up=4)) == pytest.approx(share)


def test_two_processes_end_with_the_same_weights(tmp_path: Path, start_process: Callable) -> None:
    """Real processes under torchrun, each with other clips; a checkpoint comes from the first alone."""
    script = Path(__file__).with_name("distributed_run.py")
    process = start_process(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script, tmp_path],
        PYTHONPATH=os.pathsep.join([str(script.parent), *sys.path]),
        OMP_NUM_THREADS="1",
    )
    assert process.wait(120) == 0
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["clips"] != second["clips"]
    assert all(torch.equal(first["weights"][name], second["weights"][name]) for name in first["weights"])
    assert (tmp_path / METRICS).read_text(encoding="utf-8").count("\n") == 1 + CONFIG.rounds


@pytest.mark.slow
def test_one_scene_is_learned_by_heart() -> None:
    config = replace(
        CONFIG,
        rounds=400,
        clips=1,
        augmentation=AugmentationConfig(),
        optimiser=OptimiserConfig(learning_rate=3e-3, warm_up=20),
    )
    trainer = Trainer(config, replace(MODEL, dropout=0.0), Drives([2]))
    metrics = [trainer.train_round(batches) for batches in trainer._loader(0)]
    for name in ("bev_classes", "bev_boxes"):
        assert metrics[-1][name] < 0.02 * metrics[0][name], name
