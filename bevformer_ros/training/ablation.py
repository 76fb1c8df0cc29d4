"""The same small training with and without the parts of the paper's design, and what it gives.

A run that is finished is a JSON file and is not done again; one that was interrupted goes on where it was. Several
processes may share a folder where they work on different arms or seeds.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bevformer_ros.evaluation.simulated_world import KEYFRAME_RATE, evaluate_world
from bevformer_ros.inference.pipeline import load_detector
from bevformer_ros.model.checkpoint import read_checkpoint
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.simulation.drive import Drive
from bevformer_ros.training.config import TrainingConfig
from bevformer_ros.training.curves import draw_curves, read_metrics
from bevformer_ros.training.datasets import open_dataset
from bevformer_ros.training.trainer import METRICS, WEIGHTS, Trainer
from bevformer_ros.unfinished import written_whole

TABLE, CURVES = "table.md", "convergence.png"
COLUMNS = ("mAP", "NDS", "mATE", "mAVE", "class loss", "box loss")
_FINAL_SHARE = 0.1  # of a run's rounds, over which its losses at the end are averaged


@dataclass(frozen=True)
class Arm:
    """bev, perspective: which losses teach. after: the arm of the same seed whose image part this one takes over and
    leaves as it is; without one all is learned from random weights, on single frames. two_stage: whether the decoder
    takes the proposals. residual: whether it starts from them, not from their places alone. frames: that the model
    sees, the current one included."""

    bev: bool = True
    perspective: bool = True
    after: str | None = None
    two_stage: bool = False
    residual: bool = False
    frames: int = 1

    @property
    def scores_proposals(self) -> bool:
        """Nothing but the perspective head has learned."""
        return not self.bev

    def configure(self, config: TrainingConfig, model: ModelConfig) -> tuple[TrainingConfig, ModelConfig]:
        """The arm's own, made from those that all arms have in common, which have everything."""
        config = replace(
            config,
            bev=config.bev if self.bev else None,
            perspective=config.perspective if self.perspective else None,
        )
        if self.after is None:  # as many images in a round, each from another drive
            config = replace(config, clips=config.clips * config.clip_frames, clip_frames=1)
        else:
            config = replace(config, frozen=(*config.frozen, *IMAGE_PART))
        proposals = model.proposals and replace(model.proposals, residual=self.residual)
        model = replace(
            model,
            proposals=proposals if self.two_stage or self.scores_proposals else None,
            two_stage=self.two_stage,
            temporal=replace(model.temporal, frames=tuple(range(1 - self.frames, 1))),
        )
        return config, model


IMAGE_PART = ("backbone", "neck", "perspective_head")
# Two studies: what the perspective loss teaches the image part, and, on the image part that the second arm has learned,
# what proposals and frames give to the decoder. residual is also the first of the arms by frames.
ARMS = {
    "bev": Arm(perspective=False),
    "perspective": Arm(bev=False),
    "both": Arm(),
    "one_stage": Arm(perspective=False, after="perspective"),
    "two_stage": Arm(perspective=False, after="perspective", two_stage=True),
    "residual": Arm(perspective=False, after="perspective", two_stage=True, residual=True),
    "frames_2": Arm(perspective=False, after="perspective", two_stage=True, residual=True, frames=2),
    "frames_4": Arm(perspective=False, after="perspective", two_stage=True, residual=True, frames=4),
}
CONVERGENCE = ("bev", "perspective", "both", "one_stage", "two_stage", "residual")


@dataclass(frozen=True)
class Study:
    """What all runs have in common. out: folder of all runs. cache: of rendered drives. worlds: seeds to evaluate on.
    seconds: of each."""

    config: TrainingConfig
    model: ModelConfig
    out: Path
    cache: Path
    worlds: range
    seconds: float = 10.0
    device: str = "cpu"
    workers: int = 1

    def __post_init__(self) -> None:
        if self.config.world is None:
            raise ValueError("the ablation trains in the simulated world: its configuration must name `world`")
        if not self.worlds:
            raise ValueError("worlds is 0, expected at least 1 to evaluate on")
        if not all((self.config.bev, self.config.perspective, self.model.perspective, self.model.proposals)):
            raise ValueError("the ablation leaves out parts of a whole: it needs both losses, head and proposals")

    def result_file(self, arm: str, seed: int) -> Path:
        return self.out / f"{arm}_seed{seed}.json"

    def directory(self, arm: str, seed: int) -> Path:
        return self.out / f"{arm}_seed{seed}"

    def conditions(self, arm: str, seed: int) -> dict[str, Any]:
        """What a result depends on."""
        config, model = ARMS[arm].configure(replace(self.config, seed=seed), self.model)
        worlds = [self.worlds.start, self.worlds.stop]
        return {
            "arm": arm,
            "seed": seed,
            "training": repr(config),
            "model": repr(model),
            "worlds": worlds,
            "seconds_per_world": self.seconds,
        }

    def result(self, arm: str, seed: int) -> dict[str, Any] | None:
        """Of a finished run. Raises ValueError for one under other conditions."""
        file = self.result_file(arm, seed)
        if not file.is_file():
            return None
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        differing = [key for key, value in self.conditions(arm, seed).items() if found[key] != value]
        if differing:
            raise ValueError(f"{file} is of another {', '.join(differing)}; remove it, or name another folder")
        return found

    def run(self, arm: str, seed: int) -> dict[str, Any]:
        """Train and evaluate, after the arm that this one goes on from; what was done before is not done again."""
        done = self.result(arm, seed)
        if done is not None:
            return done
        config, model = ARMS[arm].configure(replace(self.config, seed=seed), self.model)
        directory = self.directory(arm, seed)
        drives = open_dataset(config, model, self.cache)
        weights = self._image_part(ARMS[arm].after, seed)
        Trainer(config, model, drives, self.device, weights, partial=True).run(directory, workers=self.workers)
        detector = load_detector(directory / WEIGHTS, device=self.device)
        reach = self.model.bev.range[3]  # the models see as far to every side
        scores = evaluate_world(detector, self.drives(), ARMS[arm].scores_proposals, self.workers, reach)
        metrics = read_metrics(directory / METRICS)
        result = {
            **self.conditions(arm, seed),
            "training_seconds": float(metrics["seconds"].sum()),
            "final_losses": final_losses(metrics),
            "machine": machine(self.device),
            "scores": scores.as_json(),
        }
        with written_whole(self.result_file(arm, seed)) as partial:
            partial.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        return result

    def _image_part(self, arm: str | None, seed: int) -> dict[str, Tensor] | None:
        """What an arm has learned about images; None without one."""
        if arm is None:
            return None
        self.run(arm, seed)
        weights = read_checkpoint(self.directory(arm, seed) / WEIGHTS).weights
        return {name: tensor for name, tensor in weights.items() if name.partition(".")[0] in IMAGE_PART}

    def drives(self) -> list[Drive]:
        """To evaluate on, with images of the size that was trained with."""
        assert self.config.world is not None
        width = self.config.world.image_width
        return [Drive(world, self.seconds, KEYFRAME_RATE, (width, width * 9 // 16)) for world in self.worlds]

    def results(self, seeds: Sequence[int]) -> dict[str, list[dict[str, Any]]]:
        """Of all finished runs with these seeds, by arm."""
        found = {arm: [self.result(arm, seed) for seed in seeds] for arm in ARMS}
        return {arm: [entry for entry in entries if entry] for arm, entries in found.items() if any(entries)}


def write_summary(study: Study, seeds: Sequence[int]) -> str:
    """Table and curves of all finished runs with these seeds, as files in the study's folder; returns the table."""
    text = table(study.results(seeds))
    (study.out / TABLE).write_text(text + "\n", encoding="utf-8")
    files = {
        arm: [study.directory(arm, seed) / METRICS for seed in seeds if study.result(arm, seed)] for arm in CONVERGENCE
    }
    draw_curves(study.out / CURVES, {arm: found for arm, found in files.items() if found})
    return text


def final_losses(metrics: dict[str, NDArray[np.float64]]) -> dict[str, float]:
    """Means at the end of a run, by name. The decoder's tell arms apart long before it finds anything."""
    names = [name for name in metrics if name.startswith(("bev_", "perspective_"))]
    return {name: float(metrics[name][-math.ceil(_FINAL_SHARE * len(metrics[name])) :].mean()) for name in names}


def machine(device: str) -> str:
    """What a run's time depends on."""
    processor = f"{platform.machine()}, {torch.get_num_threads()} CPU threads"
    if device.startswith("cuda"):
        processor += f", {torch.cuda.get_device_name(device)}"
    return f"{processor}, torch {torch.__version__}"


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: mean and standard deviation over the runs of each arm; the losses are the decoder's at the end."""
    lines = [f"| arm | runs | {' | '.join(COLUMNS)} | minutes |", f"|---|{'---|' * (len(COLUMNS) + 2)}"]
    for arm, entries in results.items():
        cells = [_cell([_figure(entry, column) for entry in entries]) for column in COLUMNS]
        minutes = mean(entry["training_seconds"] for entry in entries) / 60
        lines.append(f"| {arm} | {len(entries)} | {' | '.join(cells)} | {minutes:.1f} |")
    return "\n".join(lines)


def _figure(result: dict[str, Any], column: str) -> float:
    """Not a number for the decoder's losses where it has not learned."""
    scores, losses = result["scores"], result["final_losses"]
    figures = {
        "mAP": scores["mean_ap"],
        "NDS": scores["nds"],
        **scores["errors"],
        "class loss": losses.get("bev_classes", math.nan),
        "box loss": losses.get("bev_boxes", math.nan),
    }
    return float(figures[column])


def _cell(values: list[float]) -> str:
    if math.isnan(mean(values)):
        return ""
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")
