"""Loss curves as a picture, from the metrics.csv files of training runs."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

# Title of a panel and how the columns begin whose sum it shows.
_PANELS = (("BEV loss", "bev_"), ("perspective loss", "perspective_"))
_HELD_OUT = "held_out_mAP"
_SMOOTHED_SHARE = 0.05  # of a run, over which its curve is averaged


def read_metrics(path: Path) -> dict[str, NDArray[np.float64]]:
    """Columns by name, a row for each round in order; of a round that was repeated after an interruption the last."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = {int(row["round"]): row for row in csv.DictReader(file)}
    if not rows:
        raise ValueError(f"{path} holds no rounds; has the run begun?")
    ordered = [rows[number] for number in sorted(rows)]
    return {name: np.array([float(row[name]) for row in ordered]) for name in ordered[0]}


def draw_curves(path: Path, runs: Mapping[str, Sequence[Path]], frames_per_round: int | None = None) -> None:
    """Write a picture with a panel for each kind of loss, and one for the held-out mAP where runs have it. runs: by
    name the metrics.csv of each repetition, whose mean is drawn, with the range from the lowest to the highest behind
    it; of the held-out mAP, which only some rounds have, each repetition. frames_per_round: draws over frames in place
    of rounds."""
    metrics = {name: [read_metrics(file) for file in files] for name, files in runs.items()}
    for repetitions in metrics.values():
        for columns in repetitions:
            columns["round"] *= frames_per_round or 1
    unit = "round" if frames_per_round is None else "frames"
    has_scores = any(_HELD_OUT in columns for repetitions in metrics.values() for columns in repetitions)
    count = len(_PANELS) + has_scores
    figure = Figure(figsize=(5.5 * count, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, count)
    if has_scores:
        _draw_scores(panels[-1], metrics)
        panels[-1].set(xlabel=unit)
    for axes, (title, prefix) in zip(panels[: len(_PANELS)], _PANELS, strict=True):
        for index, (name, repetitions) in enumerate(metrics.items()):
            curves = [curve for columns in repetitions if (curve := _loss(columns, prefix)) is not None]
            if not curves:
                continue
            values = np.stack([curve[: min(map(len, curves))] for curve in curves])
            rounds = repetitions[0]["round"][: values.shape[1]]
            axes.plot(rounds, values.mean(axis=0), color=f"C{index}", label=name)
            axes.fill_between(rounds, values.min(axis=0), values.max(axis=0), color=f"C{index}", alpha=0.2, linewidth=0)
        axes.set(title=title, xlabel=unit, yscale="log")
        axes.grid(alpha=0.3, which="both")
        if axes.has_data():
            axes.legend()
    figure.savefig(path, dpi=110)


def _draw_scores(axes: Axes, metrics: Mapping[str, Sequence[Mapping[str, NDArray[np.float64]]]]) -> None:
    for index, (name, repetitions) in enumerate(metrics.items()):
        for repetition, columns in enumerate(repetitions):
            scores = columns.get(_HELD_OUT, np.zeros(0))
            known = np.flatnonzero(np.isfinite(scores))
            axes.plot(
                columns["round"][known],
                scores[known],
                marker="o",
                color=f"C{index}",
                label=None if repetition else name,
            )
    axes.set(title="held-out mAP")
    axes.grid(alpha=0.3)
    axes.legend()


def _loss(columns: Mapping[str, NDArray[np.float64]], prefix: str) -> NDArray[np.float64] | None:
    """The smoothed sum of the columns with this prefix; None where there are none."""
    parts = [values for name, values in columns.items() if name.startswith(prefix)]
    if not parts:
        return None
    total = np.sum(parts, axis=0)
    width = max(1, round(_SMOOTHED_SHARE * len(total)))
    sums = np.cumsum(np.concatenate([[0.0], total]))
    first = np.maximum(np.arange(1, len(sums)) - width, 0)
    return (sums[1:] - sums[first]) / (np.arange(1, len(sums)) - first)
