"""`bevformer-ros ablate`: train and score with and without parts of the design, as tables."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from bevformer_ros.commands.detector_options import add_device, device_of
from bevformer_ros.commands.options import add_cache, add_output, add_workers, cache_of
from bevformer_ros.config import load_yaml
from bevformer_ros.inference.precision import resolve_precision
from bevformer_ros.model.checkpoint import read_checkpoint
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.resources import config_file
from bevformer_ros.simulation.seeds import EVALUATION_SEEDS
from bevformer_ros.training.ablation import CURVES, STUDIES, Study, write_summary
from bevformer_ros.training.config import TrainingConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--study", required=True, choices=STUDIES, help="which parts are put to the test")
    add_output(parser, "FOLDER", "folder of all runs; those in it go on")
    parser.add_argument("--weights", type=Path, help="of which all arms take the parts that are frozen")
    add_cache(parser)
    parser.add_argument("--config", help="a YAML in place of the study's own in config/training")
    parser.add_argument("--arms", nargs="+", help="(default: all of the study)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the training (default 0)")
    parser.add_argument("--rounds", type=int, help="of the training (default: as configured)")
    parser.add_argument("--worlds", type=int, default=8, help="reserved worlds to evaluate on (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each such world (default %(default)s)")
    add_device(parser)
    add_workers(parser, 1, "load and render")


def run(arguments: argparse.Namespace) -> int:
    study = _study(arguments)
    for seed in arguments.seeds:
        for arm in arguments.arms or study.arms:
            print(f"{arm}, seed {seed}", flush=True)
            print(f"mAP {study.run(arm, seed).mean_ap:.3f}", flush=True)
    print(f"\n{write_summary(study, arguments.seeds)}")
    print(f"curves: {arguments.output / CURVES}")
    return 0


def _study(arguments: argparse.Namespace) -> Study:
    """Raises ValueError for an arm that the study lacks."""
    arms = STUDIES[arguments.study]
    strangers = sorted(set(arguments.arms or ()) - arms.keys())
    if strangers:
        raise ValueError(f"study {arguments.study} has no arm {', '.join(strangers)}; it has {', '.join(arms)}")
    config = load_yaml(TrainingConfig, config_file("training", arguments.config or f"ablation_{arguments.study}"))
    model = load_yaml(ModelConfig, config_file("models", config.model))
    device = device_of(arguments)
    config = replace(
        config, rounds=arguments.rounds or config.rounds, precision=resolve_precision(config.precision, device)
    )
    return Study(
        arms,
        config,
        model,
        read_checkpoint(arguments.weights).weights if arguments.weights else None,
        arguments.output,
        cache_of(arguments),
        EVALUATION_SEEDS[: arguments.worlds],
        arguments.seconds,
        device,
        arguments.workers,
    )
