"""`bevformer-ros ablate`: train and score with and without parts of the design, as a table."""

from __future__ import annotations

import argparse
from dataclasses import replace

from bevformer_ros.commands.detector_options import add_device, device_of
from bevformer_ros.commands.options import add_cache, add_output, add_workers, cache_of
from bevformer_ros.config import load_yaml
from bevformer_ros.inference.precision import resolve_precision
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.resources import config_file
from bevformer_ros.simulation.seeds import EVALUATION_SEEDS
from bevformer_ros.training.ablation import ARMS, CURVES, Study, table, write_summary
from bevformer_ros.training.config import TrainingConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output(parser, "FOLDER", "folder of all runs; those in it go on")
    add_cache(parser)
    parser.add_argument("--config", default="ablation", help="name in config/training, or a YAML (default %(default)s)")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="(default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the training (default 0 1 2)")
    parser.add_argument("--rounds", type=int, help="of the training (default: as configured)")
    parser.add_argument("--worlds", type=int, default=8, help="reserved worlds to evaluate on (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each such world (default %(default)s)")
    add_device(parser)
    add_workers(parser, 1, "load and render")


def run(arguments: argparse.Namespace) -> int:
    config = load_yaml(TrainingConfig, config_file("training", arguments.config))
    model = load_yaml(ModelConfig, config_file("models", config.model))
    if arguments.rounds is not None:
        config = replace(config, rounds=arguments.rounds)
    device = device_of(arguments)
    config = replace(config, precision=resolve_precision(config.precision, device))
    study = Study(
        config,
        model,
        arguments.output,
        cache_of(arguments),
        EVALUATION_SEEDS[: arguments.worlds],
        arguments.seconds,
        device,
        arguments.workers,
    )
    for seed in arguments.seeds:
        for arm in arguments.arms:
            print(f"{arm}, seed {seed}", flush=True)
            print(table({arm: [study.run(arm, seed)]}), flush=True)
    print(f"\n{write_summary(study, arguments.seeds)}")
    print(f"curves: {arguments.output / CURVES}")
    return 0
