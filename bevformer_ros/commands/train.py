"""`bevformer-ros train`: train a detector as a YAML in config/training says, and the options that stand in its place.

On several GPUs of one machine: torchrun --nproc-per-node 8 --module bevformer_ros train …
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bevformer_ros.commands.detector_options import add_device, device_of
from bevformer_ros.commands.field_options import add_tree, tree_values
from bevformer_ros.commands.options import add_cache, add_output, add_workers, cache_of
from bevformer_ros.config import load_yaml
from bevformer_ros.model.checkpoint import read_checkpoint
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.resources import config_file
from bevformer_ros.training.config import TrainingConfig
from bevformer_ros.training.curves import draw_curves
from bevformer_ros.training.datasets import open_dataset
from bevformer_ros.training.trainer import METRICS, WEIGHTS, Trainer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, help="name in config/training, or a YAML file")
    add_output(parser, "FOLDER", "directory of the run; one that has a run continues it")
    parser.add_argument("--weights", type=Path, help="file to start from: an official .pth or a .safetensors")
    parser.add_argument("--partial", action="store_true", help="take what fits of --weights; the rest stays random")
    add_cache(parser)
    add_device(parser)
    add_workers(parser, 1, "load data")
    parser.add_argument("--checkpoint-every", type=int, default=20, help="rounds (default %(default)s)")
    parser.add_argument(
        "--tensorboard",
        action="store_true",
        help="write the metrics as TensorBoard's events too, with pictures of held-out detections",
    )
    parser.usage = f"{parser.prog} --config NAME -o FOLDER [options]"  # there are some sixty of them
    add_tree(parser, TrainingConfig)


def run(arguments: argparse.Namespace) -> int:
    device = device_of(arguments)
    changes = tree_values(arguments, TrainingConfig)
    config = load_yaml(TrainingConfig, config_file("training", arguments.config), changes)
    model = load_yaml(ModelConfig, config_file("models", config.model))
    out = arguments.output
    drives = open_dataset(config, model, cache_of(arguments))
    weights = read_checkpoint(arguments.weights).weights if arguments.weights else None
    trainer = Trainer(config, model, drives, device, weights, arguments.partial)
    trainer.run(out, arguments.checkpoint_every, arguments.workers, arguments.tensorboard)
    if trainer.rank == 0:
        draw_curves(out / "curves.png", {out.name: [out / METRICS]})
        print(f"{out / WEIGHTS}, curves in {out / 'curves.png'}")
    return 0
