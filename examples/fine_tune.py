"""A few rounds on data of your own, from the shipped weights: python examples/fine_tune.py OUT.

Your data is a class with `lengths` and `frames`, as training.labelled_frame.DriveDataset has them; this one has two
simulated drives. More rounds, a GPU, several processes: bevformer-ros train.
"""

import sys
from dataclasses import replace
from pathlib import Path

from bevformer_ros.config import load_yaml
from bevformer_ros.inference.pipeline import load_detector
from bevformer_ros.model.checkpoint import read_checkpoint
from bevformer_ros.resources import config_file, model_file
from bevformer_ros.training.config import TrainingConfig, WorldDataConfig
from bevformer_ros.training.datasets import open_dataset
from bevformer_ros.training.trainer import WEIGHTS, Trainer

out = Path(sys.argv[1])
shipped = read_checkpoint(model_file("demo"))
assert shipped.config is not None
demo = load_yaml(TrainingConfig, config_file("training", "demo"))
config = replace(
    demo, world=WorldDataConfig(seeds=(0, 2), frames=2), rounds=2, clips=1, clip_frames=2,
    optimiser=replace(demo.optimiser, learning_rate=5e-5, warm_up=0),
)  # fmt: skip
trainer = Trainer(config, shipped.config, open_dataset(config, shipped.config, out / "drives"), weights=shipped.weights)
trainer.run(out, workers=0)
print(f"{out / WEIGHTS} detects like any other: {load_detector(out / WEIGHTS).config.name}")
