"""Time per set against the number of cameras, the image size and the history."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from matplotlib import rc_context
from matplotlib.figure import Figure

from bevformer_ros.benchmarks.stage_times import Mode, Report, changed, measure
from bevformer_ros.inference.choices import Precision
from bevformer_ros.model.config import ModelConfig

_HEIGHTS = (0.5, 1.0, 1.5, 2.0, 2.5)  # of the model's own
_ROUND_TO = 16  # rows

Curve = list[tuple[float, Report]]


@dataclass(frozen=True)
class Scaling:
    """What is varied, each about the model as it is; an empty one is left as the model has it. heights: of the
    network's input."""

    cameras: tuple[int, ...] = tuple(range(1, 9))
    heights: tuple[int, ...] = ()
    past_frames: tuple[int, ...] = (0, 1, 2, 4, 8)


def measure_curves(
    config: ModelConfig, scaling: Scaling, device: str, precision: Precision, repeats: int
) -> dict[str, dict[str, Curve]]:
    """By axis, then by what is compared along it."""
    heights = scaling.heights or [_ROUND_TO * round(share * config.image.height / _ROUND_TO) for share in _HEIGHTS]

    def timed(variant: ModelConfig) -> Report:
        return measure(variant, None, device, precision, repeats)

    by_cameras: Curve = [(count, timed(changed(config, cameras=count))) for count in scaling.cameras]
    by_size: Curve = []
    for height in heights:
        report = timed(changed(config, height=height))
        by_size.append((report.input_size[0] * report.input_size[1] / 1e6, report))
    by_history: dict[str, Curve] = {
        mode: [(past, timed(changed(config, past_frames=past, mode=mode))) for past in scaling.past_frames]
        for mode in modes_of(config)
    }
    return {
        "cameras": {"": by_cameras},
        "megapixels of a camera's input": {"": by_size},
        "past frames": by_history,
    }


def modes_of(config: ModelConfig) -> tuple[Mode, ...]:
    """Of the history; proposals on the BEV map would be lost where past frames are encoded anew."""
    on_bev_map = config.proposals is not None and config.proposals.on_bev_map
    return ("warp",) if on_bev_map else get_args(Mode)


def table(axes: dict[str, dict[str, Curve]]) -> str:
    """A line for each curve."""
    rows = [_row(f"{axis} {name}".strip(), curve) for axis, curves in axes.items() for name, curve in curves.items()]
    return "\n".join(rows)


def _milliseconds(report: Report) -> float:
    """Of the detector, whose files are decoded elsewhere meanwhile."""
    return report.end_to_end.median - report.stages["decode"].times.median


def _row(axis: str, curve: Curve) -> str:
    cells = [f"{place:g}: {_milliseconds(report):.1f} ms" for place, report in curve]
    return f"{axis}  " + ", ".join(cells)


def draw(axes: dict[str, dict[str, Curve]], title: str, output: Path) -> None:
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    plots = figure.subplots(1, len(axes), sharey=True)
    for plot, (axis, curves) in zip(plots, axes.items(), strict=True):
        for name, curve in curves.items():
            plot.plot([place for place, _ in curve], [_milliseconds(report) for _, report in curve], "o-", label=name)
        plot.set_xlabel(axis)
        plot.set_xlim(left=0)
        plot.grid(alpha=0.3)
        if len(curves) > 1:
            plot.legend()
    plots[0].set_ylabel("ms per set")
    plots[0].set_ylim(bottom=0)  # of all, once all are drawn: it ends their scaling by what they hold
    figure.suptitle(title, fontsize="medium")
    with rc_context({"svg.fonttype": "none"}):  # text as text, a third of the size
        figure.savefig(output)
