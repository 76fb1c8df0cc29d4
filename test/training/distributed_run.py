"""One process of test_trainer's run under torchrun; leaves its weights and clips in the directory."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from test_trainer import CONFIG, DRIVES, MODEL

from bevformer_ros.training.trainer import Trainer

trainer = Trainer(CONFIG, MODEL, DRIVES)
directory = Path(sys.argv[1])
# Their own statistics of the batches aside, which belong to each process.
trainer.run(directory, workers=0)
weights = {name: value.detach() for name, value in trainer.trained.network.named_parameters()}
clips = Trainer(CONFIG, MODEL, DRIVES).clips_left()
torch.save({"weights": weights, "clips": clips}, directory / f"rank{trainer.rank}.pt")
