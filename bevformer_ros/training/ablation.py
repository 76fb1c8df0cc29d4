"""The same small training with and without the parts of the paper's design, and what it gives.

A run that is finished is a JSON file and is not done again; one that was interrupted goes on where it was. Several
processes may share a folder where they work on different arms or seeds.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bevformer_ros.evaluation.protocol import score
from bevformer_ros.evaluation.sample_file import read_samples, write_samples
from bevformer_ros.evaluation.simulated_world import KEYFRAME_RATE, world_samples
from bevformer_ros.inference.pipeline import load_detector
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.simulation.drive import Drive
from bevformer_ros.training.ablation_table import Run, differences_table, scores_table
from bevformer_ros.training.config import BevLossConfig, TrainingConfig
from bevformer_ros.training.curves import draw_curves, read_metrics
from bevformer_ros.training.datasets import open_dataset
from bevformer_ros.training.kept_encodings import KeptEncodings
from bevformer_ros.training.trainer import METRICS, WEIGHTS, Trainer
from bevformer_ros.unfinished import written_whole

TABLE, CURVES, BOXES = "table.md", "convergence.png", "boxes.npz"


@dataclass(frozen=True)
class Arm:
    """bev, perspective: which losses teach. two_stage: whether the decoder takes the proposals. residual: whether it
    starts from them, not from their places alone. frames: that the model sees, the current one included. on_bev_map:
    whether proposals are written into the BEV map. than: the arm that it is compared with."""

    bev: bool = True
    perspective: bool = False
    two_stage: bool = False
    residual: bool = False
    frames: int = 1
    on_bev_map: bool = False
    than: str | None = None

    @property
    def scores_proposals(self) -> bool:
        """Nothing but the perspective head has learned."""
        return not self.bev

    def configure(self, config: TrainingConfig, model: ModelConfig) -> tuple[TrainingConfig, ModelConfig]:
        """The arm's own, made from those that all arms have in common, which have everything.

        A decoder that does without a two-stage model's proposals gets as many learned queries in their place.
        """
        assert config.bev is not None and model.proposals is not None
        bev = config.bev if self.residual else _without_proposals(config.bev)
        config = replace(
            config, bev=bev if self.bev else None, perspective=config.perspective if self.perspective else None
        )
        proposals = replace(
            model.proposals,
            residual=self.residual,
            on_bev_map=self.on_bev_map,
            query_content="enriched" if self.residual else "learned",
        )
        in_their_place = proposals.count if model.two_stage and not self.two_stage else 0
        model = replace(
            model,
            proposals=proposals,
            two_stage=self.two_stage,
            temporal=replace(model.temporal, frames=tuple(range(1 - self.frames, 1))),
            decoder=replace(model.decoder, queries=model.decoder.queries + in_their_place),
        )
        return config, model


def _without_proposals(loss: BevLossConfig) -> BevLossConfig:
    """The paper's: what goes with a decoder that starts from its proposals is left out."""
    return replace(loss, quality_distance=None, proposal_radius=None, learned_radius=None)


_RESIDUAL = Arm(two_stage=True, residual=True, than="residual")
# What the perspective loss teaches the image part, and what proposals and frames give to a decoder whose image part is
# finished; each has its configuration, config/training/ablation_NAME.yaml.
STUDIES: dict[str, dict[str, Arm]] = {
    "perspective": {
        "bev": Arm(),
        "perspective": Arm(bev=False, perspective=True, than="bev"),
        "both": Arm(perspective=True, than="bev"),
    },
    "second_stage": {
        "one_stage": Arm(),
        "two_stage": Arm(two_stage=True, than="one_stage"),
        "residual": replace(_RESIDUAL, than="two_stage"),
        "frames_2": replace(_RESIDUAL, frames=2),
        "frames_4": replace(_RESIDUAL, frames=4),
        "on_bev_map": replace(_RESIDUAL, frames=4, on_bev_map=True, than="frames_4"),
    },
}


@dataclass(frozen=True)
class Study:
    """What all runs have in common. weights: whose frozen parts all arms take over. out: folder of all runs. cache: of
    rendered drives. worlds: seeds to evaluate on. seconds: of each."""

    arms: Mapping[str, Arm]
    config: TrainingConfig
    model: ModelConfig
    weights: Mapping[str, Tensor] | None
    out: Path
    cache: Path
    worlds: range
    seconds: float = 10.0
    device: str = "cpu"
    workers: int = 1
    _encodings: KeptEncodings = field(default_factory=KeptEncodings, init=False, repr=False)

    def __post_init__(self) -> None:
        config = self.config
        if config.world is None:
            raise ValueError("the ablation trains in the simulated world: its configuration must name `world`")
        if len(self.worlds) < 2:
            raise ValueError(f"worlds is {len(self.worlds)}, expected at least 2 to say how much worlds differ")
        if config.bev is None or self.model.proposals is None:
            raise ValueError("the ablation leaves out parts of a whole: it needs the decoder's loss, and proposals")
        if any(arm.perspective for arm in self.arms.values()) and config.perspective is None:
            raise ValueError("an arm learns from the loss of the perspective head, but perspective is null")
        if config.frozen and self.weights is None:
            raise ValueError(f"{', '.join(config.frozen)} are frozen: name the weights that they are taken from")

    def result_file(self, arm: str, seed: int) -> Path:
        return self.out / f"{arm}_seed{seed}.json"

    def directory(self, arm: str, seed: int) -> Path:
        return self.out / f"{arm}_seed{seed}"

    def conditions(self, arm: str, seed: int) -> dict[str, Any]:
        """What a result depends on."""
        config, model = self.arms[arm].configure(replace(self.config, seed=seed), self.model)
        return {
            "arm": arm,
            "seed": seed,
            "training": repr(config),
            "model": repr(model),
            "worlds": [self.worlds.start, self.worlds.stop],
            "seconds_per_world": self.seconds,
        }

    def result(self, arm: str, seed: int) -> Run | None:
        """Of a finished run. Raises ValueError for one under other conditions."""
        file = self.result_file(arm, seed)
        if not file.is_file():
            return None
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        differing = [key for key, value in self.conditions(arm, seed).items() if found[key] != value]
        if differing:
            raise ValueError(f"{file} is of another {', '.join(differing)}; remove it, or name another folder")
        samples = read_samples(self.directory(arm, seed) / BOXES)
        count = len(samples) // len(self.worlds)
        scenes = {str(world): samples[place * count :][:count] for place, world in enumerate(self.worlds)}
        return Run(found, scenes)

    def run(self, arm: str, seed: int) -> Run:
        """Train and evaluate; what was done before is not done again."""
        if not self.result_file(arm, seed).is_file():
            self._train(arm, seed)
            self._evaluate(arm, seed)
        done = self.result(arm, seed)
        assert done is not None
        return done

    def _train(self, arm: str, seed: int) -> None:
        config, model = self.arms[arm].configure(replace(self.config, seed=seed), self.model)
        drives = open_dataset(config, model, self.cache)
        weights = {name: part for name, part in (self.weights or {}).items() if name.partition(".")[0] in config.frozen}
        trainer = Trainer(config, model, drives, self.device, weights or None, partial=True, encodings=self._encodings)
        trainer.run(self.directory(arm, seed), workers=self.workers)

    def _evaluate(self, arm: str, seed: int) -> None:
        directory = self.directory(arm, seed)
        detector = load_detector(directory / WEIGHTS, device=self.device)
        reach = self.model.bev.range[3]  # the models see as far to every side
        samples = world_samples(detector, self.drives(), self.arms[arm].scores_proposals, self.workers, reach)
        write_samples(directory / BOXES, samples)
        result = {
            **self.conditions(arm, seed),
            "training_seconds": float(read_metrics(directory / METRICS)["seconds"].sum()),
            "machine": machine(self.device),
            "scores": score(samples).as_json(),
        }
        with written_whole(self.result_file(arm, seed)) as partial:
            partial.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")

    def drives(self) -> list[Drive]:
        """To evaluate on, with images of the size that was trained with."""
        assert self.config.world is not None
        width = self.config.world.image_width
        return [Drive(world, self.seconds, KEYFRAME_RATE, (width, width * 9 // 16)) for world in self.worlds]

    def results(self, seed: int) -> dict[str, Run]:
        """Of all finished runs with this seed, by arm."""
        found = {arm: self.result(arm, seed) for arm in self.arms}
        return {arm: run for arm, run in found.items() if run}


def write_summary(study: Study, seeds: Sequence[int]) -> str:
    """Tables and curves of all finished runs with these seeds, as files in the study's folder; returns the tables."""
    runs = {seed: study.results(seed) for seed in seeds}
    than = {name: arm.than for name, arm in study.arms.items() if arm.than is not None}
    tables = [scores_table(runs), *(differences_table(found, than) for found in runs.values())]
    text = "\n\n".join(table for table in tables if table)
    (study.out / TABLE).write_text(text + "\n", encoding="utf-8")
    files = {arm: [study.directory(arm, seed) / METRICS for seed in seeds if arm in runs[seed]] for arm in study.arms}
    frames = study.config.clips_per_round * study.config.clip_frames
    draw_curves(study.out / CURVES, {arm: found for arm, found in files.items() if found}, frames)
    return text


def machine(device: str) -> str:
    """What a run's time depends on."""
    processor = f"{platform.machine()}, {torch.get_num_threads()} CPU threads"
    if device.startswith("cuda"):
        processor += f", {torch.cuda.get_device_name(device)}"
    return f"{processor}, torch {torch.__version__}"
