"""The training loop: rounds of clips, gradients, the average of the weights, checkpoints that continue bit for bit."""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm

from bevformer_ros.inference.bev_buffer import BevBuffer
from bevformer_ros.inference.precision import resolve_device, resolve_precision
from bevformer_ros.model.checkpoint import load_weights, save_checkpoint
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.model.network import build_network
from bevformer_ros.model.timm_backbone import load_pretrained
from bevformer_ros.training.batch import Batch, ClipBatches, moved
from bevformer_ros.training.clips import Clips
from bevformer_ros.training.config import HeldOutConfig, OptimiserConfig, TrainingConfig
from bevformer_ros.training.kept_encodings import KeptEncodings
from bevformer_ros.training.labelled_frame import DriveDataset
from bevformer_ros.training.network_with_losses import NetworkWithLosses
from bevformer_ros.unfinished import written_whole
from bevformer_ros.worker_process import follow_parent, starting_workers

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

CHECKPOINT, WEIGHTS, METRICS = "checkpoint.pt", "weights.safetensors", "metrics.csv"


class Trainer:
    """One process's part of a run. With torchrun (WORLD_SIZE set) every process trains on its own clips and the
    gradients are averaged; losses are normalised by each process's own objects."""

    def __init__(
        self,
        config: TrainingConfig,
        model: ModelConfig,
        drives: DriveDataset,
        device: str = "cpu",
        weights: Mapping[str, Tensor] | None = None,
        partial: bool = False,
        encodings: KeptEncodings | None = None,
    ) -> None:
        """weights: to start from, instead of random ones. Raises ValueError where they do not fit the model, unless
        partial: then what fits is taken, and the rest stays random. encodings: kept by an earlier run with the same
        frozen parts, for a configuration that keeps them."""
        self.config = config
        self.rank, self.processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        device = resolve_device(device)
        self._precision = resolve_precision(config.precision, device)
        if device == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        self._device = torch.device(device)
        if self.processes > 1 and not distributed.is_initialized():
            distributed.init_process_group("nccl" if device == "cuda" else "gloo")
        torch.manual_seed(config.seed)
        # Channels last: convolutions in half precision are up to twice as fast with it, on CPU and GPU.
        network = build_network(model)
        if weights is None:
            load_pretrained(network.backbone)
        else:
            load_weights(network, weights, partial)
        network.to(self._device)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.trained = NetworkWithLosses(network, config, encodings)
        self._forward: nn.Module = self.trained
        if self.processes > 1:
            self._forward = DistributedDataParallel(self.trained)
        torch.manual_seed(config.seed + self.rank)  # the same weights, but other dropout
        parameters = [parameter for parameter in self.trained.parameters() if parameter.requires_grad]
        optimiser = config.optimiser
        self._optimiser = torch.optim.AdamW(parameters, lr=optimiser.learning_rate, weight_decay=optimiser.weight_decay)
        steps = config.rounds * config.clip_frames
        self._schedule = LambdaLR(self._optimiser, lambda step: learning_rate_share(step, steps, optimiser))
        self._scaler = torch.amp.GradScaler(device, enabled=self._precision == "float16")
        self.average = AveragedModel(
            self.trained.network, multi_avg_fn=get_ema_multi_avg_fn(optimiser.ema_decay), use_buffers=True
        )
        self._clips = Clips(drives, config, model.cameras)
        self.round = 0

    def run(self, directory: Path, checkpoint_every: int = 20, workers: int = 1, tensorboard: bool = False) -> None:
        """Train to the end, from the checkpoint in the directory where there is one.

        Writes metrics.csv (a line per round), checkpoint.pt and at last weights.safetensors, the averaged weights.
        tensorboard: the metrics as TensorBoard's events too, and a picture with each held-out mAP. Raises ValueError
        where it is not installed.
        """
        directory.mkdir(parents=True, exist_ok=True)
        if (directory / CHECKPOINT).exists():
            self.restore(directory / CHECKPOINT)
        if self.rank == 0:
            _forget_after(directory / METRICS, self.round)
        rounds = range(self.round, self.config.rounds)
        with _events(directory, self.round) if tensorboard and self.rank == 0 else nullcontext() as events:
            for batches in tqdm(self._loader(workers), total=len(rounds), desc="rounds", disable=self.rank > 0):
                metrics = self.train_round(batches)
                if self.rank == 0:
                    if self.config.held_out is not None:
                        metrics["held_out_mAP"] = self._held_out_map(self.config.held_out, events)
                    _log(directory / METRICS, metrics)
                    if events is not None:
                        _add_scalars(events, metrics, self.round)
                    if self.round % checkpoint_every == 0 or self.round == self.config.rounds:
                        self.save(directory)

    def _held_out_map(self, config: HeldOutConfig, events: SummaryWriter | None) -> float:
        """Of the averaged weights, where the round is one for it, with a picture for the events; else NaN."""
        if self.round % config.every and self.round < self.config.rounds:
            return math.nan
        # These need the nuscenes-devkit, training does not.
        from bevformer_ros.training.held_out import held_out_detector, held_out_map, held_out_picture

        detector = held_out_detector(self.trained.network.config, self.averaged_weights(), self._device)
        decoder = self.config.bev is not None
        if events is not None:
            picture = held_out_picture(detector, config, decoder)
            events.add_image("held_out", picture[..., ::-1].copy(), self.round, dataformats="HWC")
        return held_out_map(detector, config, decoder)

    def clips_left(self) -> list[list[int]]:
        """Indices of this process's clips in every round that is left."""
        width = self.config.clips_per_round
        return [
            [(index * self.processes + self.rank) * width + place for place in range(width)]
            for index in range(self.round, self.config.rounds)
        ]

    def _loader(self, workers: int) -> Iterator[list[list[Batch]]]:
        """The batches of every step of every round that is left, on the CPU, made by the workers."""
        rounds = self.clips_left()
        if not rounds:
            return iter(())
        # With a generator of its own the loader draws nothing from the one that a checkpoint restores.
        generator = torch.Generator()
        loader = DataLoader(
            self._clips,
            batch_sampler=rounds,
            num_workers=workers,
            collate_fn=ClipBatches(self.trained.network.config, self.config.clips),
            generator=generator,
            # A forked process inherits locks of threads that it does not have, OpenCV's among them.
            multiprocessing_context="spawn" if workers else None,
            worker_init_fn=follow_parent,
        )
        with starting_workers():
            return iter(loader)

    def train_round(self, steps: list[list[Batch]]) -> dict[str, float]:
        """One step for each list of batches; mean losses by name, and what else is worth a look."""
        started = time.perf_counter()
        self.trained.train()
        buffers = [self.trained.empty_buffers(len(batch.stamps_ns)) for batch in steps[0]]
        sums: dict[str, float] = {}
        for batches in steps:
            self._optimiser.zero_grad()
            for batch, group in zip(batches, buffers, strict=True):
                for name, value in self._backward(moved(batch, self._device), group, 1 / len(batches)).items():
                    sums[name] = sums.get(name, 0.0) + value / len(batches) / len(steps)
            sums["gradient_norm"] = sums.get("gradient_norm", 0.0) + self._update().item() / len(steps)
        self.round += 1
        return {
            "round": self.round,
            "seconds": time.perf_counter() - started,
            "learning_rate": float(self._schedule.get_last_lr()[0]),
            **sums,
        }

    def _backward(self, batch: Batch, buffers: list[BevBuffer], share: float) -> dict[str, float]:
        """Add the batch's share to the gradients, and its frames to the history; its losses by name."""
        with torch.autocast(self._device.type, getattr(torch, self._precision), self._precision != "float32"):
            losses, encoded = self._forward(batch, buffers)
        loss = torch.stack(list(losses.values())).sum()
        if not loss.isfinite():
            raise FloatingPointError(
                f"the loss is {loss.item()} in round {self.round + 1}; lower the learning rate or use bfloat16, and "
                "start again from the last checkpoint"
            )
        self._scaler.scale(loss * share).backward()
        for buffer, entry in zip(buffers, encoded, strict=False):
            buffer.store(entry)
        return {name: value.item() for name, value in losses.items()}

    def _update(self) -> Tensor:
        """A step along the gradients; their norm."""
        self._scaler.unscale_(self._optimiser)
        norm = nn.utils.clip_grad_norm_(self.trained.parameters(), self.config.optimiser.gradient_clip)
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self._schedule.step()
        self.average.update_parameters(self.trained.network)
        return norm

    def averaged_weights(self) -> dict[str, Tensor]:
        return self.average.module.state_dict()

    def save(self, directory: Path) -> None:
        save_checkpoint(directory / WEIGHTS, self.averaged_weights(), self.trained.network.config)
        with written_whole(directory / CHECKPOINT) as partial:
            try:
                torch.save(self._state(), partial)
            except RuntimeError as error:
                raise OSError(f"{partial} cannot be written, is the disk full? {error}") from error

    def _state(self) -> dict[str, Any]:
        parts = self._stateful()
        return {
            "round": self.round,
            "random": torch.get_rng_state(),
            **{name: part.state_dict() for name, part in parts.items()},
        }

    def restore(self, path: Path) -> None:
        """Continue where the checkpoint was written. Raises ValueError for that of another model."""
        state = torch.load(path, map_location=self._device, weights_only=True)
        try:
            for name, part in self._stateful().items():
                part.load_state_dict(state[name])
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{path}: is of another model or run, give another directory: {error}") from error
        if self.rank == 0:  # whose it is; with it all processes would drop the same
            torch.set_rng_state(state["random"].cpu())
        self.round = state["round"]

    def _stateful(self) -> dict[str, Any]:
        return {
            "network": self.trained.network,
            "average": self.average,
            "optimiser": self._optimiser,
            "schedule": self._schedule,
            "scaler": self._scaler,
        }


def learning_rate_share(step: int, steps: int, config: OptimiserConfig) -> float:
    """Of the configured learning rate: rising in a line, then falling along half a cosine."""
    if step < config.warm_up:
        return (step + 1) / config.warm_up
    progress = (step - config.warm_up) / max(steps - config.warm_up, 1)
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def _forget_after(path: Path, last: int) -> None:
    """Take away the rounds after a checkpoint that a run goes on from: they are done again."""
    if not path.exists():
        return
    header, *rows = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [row for row in rows if row.endswith("\n") and int(row.partition(",")[0]) <= last]
    with written_whole(path) as partial:
        partial.write_text("".join([header, *kept]), encoding="utf-8")


def _events(directory: Path, last: int) -> SummaryWriter:
    """What an interrupted run wrote of the rounds after `last` is taken back: they are done again."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(f"TensorBoard's events need the module {error.name}: pip install tensorboard") from error
    return SummaryWriter(str(directory), purge_step=last + 1)


def _add_scalars(events: SummaryWriter, metrics: Mapping[str, float], step: int) -> None:
    for name, value in metrics.items():
        if not math.isnan(value):
            events.add_scalar(name, value, step)


def _log(path: Path, metrics: dict[str, float]) -> None:
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(metrics))
        if is_new:
            writer.writeheader()
        writer.writerow({name: f"{value:.6g}" for name, value in metrics.items()})
