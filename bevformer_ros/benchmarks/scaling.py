"""`bevformer-ros benchmark-scaling`: time per set against the number of cameras, the image size and the history."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

import torch
from matplotlib import rc_context
from matplotlib.figure import Figure

from bevformer_ros.benchmarks.stage_times import Mode, Report, changed, measure
from bevformer_ros.config import load_yaml
from bevformer_ros.inference.memory import keep_freed_memory
from bevformer_ros.inference.pipeline import Precision
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.resources import config_file

_CAMERAS = tuple(range(1, 9))
_HEIGHTS = (0.5, 1.0, 1.5, 2.0, 2.5)  # of the model's own
_PAST_FRAMES = (0, 1, 2, 4, 8)
_ROUND_TO = 16  # rows

Curve = list[tuple[float, Report]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="tiny_two_stage", help="name in config/models, or a YAML file")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default %(default)s)")
    parser.add_argument("--precision", choices=get_args(Precision), default="float32", help="(default %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="timed frames for each point (default %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default %(default)s)")
    parser.add_argument("--cameras", type=int, nargs="+", default=_CAMERAS, help="(default 1 to 8)")
    parser.add_argument("--heights", type=int, nargs="+", help="of the input (default: half to 2.5 times the model's)")
    parser.add_argument("--past-frames", type=int, nargs="+", default=_PAST_FRAMES, help="(default 0 1 2 4 8)")
    parser.add_argument("-o", "--output", type=Path, default=Path("scaling.svg"), help="(default %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    config = load_yaml(ModelConfig, config_file("models", arguments.model))
    heights = arguments.heights or [_ROUND_TO * round(share * config.image.height / _ROUND_TO) for share in _HEIGHTS]

    def timed(variant: ModelConfig) -> Report:
        return measure(variant, None, arguments.device, arguments.precision, arguments.repeats)

    by_cameras: Curve = [(count, timed(changed(config, cameras=count))) for count in arguments.cameras]
    by_size: Curve = []
    for height in heights:
        report = timed(changed(config, height=height))
        by_size.append((report.input_size[0] * report.input_size[1] / 1e6, report))
    by_history = {
        mode: [(past, timed(changed(config, past_frames=past, mode=mode))) for past in arguments.past_frames]
        for mode in get_args(Mode)
    }
    panels = {
        "cameras": {"": by_cameras},
        "megapixels of a camera's input": {"": by_size},
        "past frames": by_history,
    }
    for axis, curves in panels.items():
        for name, curve in curves.items():
            print(_rows(f"{axis} {name}".strip(), curve))
    _draw(panels, f"{config.name}, {arguments.precision}, {by_cameras[0][1].device}", arguments.output)
    print(f"plot: {arguments.output}")
    return 0


def _milliseconds(report: Report) -> float:
    """Of the detector, whose files are decoded elsewhere meanwhile."""
    return report.end_to_end.median - report.stages["decode"].times.median


def _rows(axis: str, curve: Curve) -> str:
    cells = [f"{place:g}: {_milliseconds(report):.1f} ms" for place, report in curve]
    return f"{axis}  " + ", ".join(cells)


def _draw(panels: dict[str, dict[str, Curve]], title: str, output: Path) -> None:
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True)
    for plot, (axis, curves) in zip(axes, panels.items(), strict=True):
        for name, curve in curves.items():
            plot.plot([place for place, _ in curve], [_milliseconds(report) for _, report in curve], "o-", label=name)
        plot.set_xlabel(axis)
        plot.set_xlim(left=0)
        plot.set_ylim(bottom=0)
        plot.grid(alpha=0.3)
        if len(curves) > 1:
            plot.legend()
    axes[0].set_ylabel("ms per set")
    figure.suptitle(title, fontsize="medium")
    with rc_context({"svg.fonttype": "none"}):  # text as text, a third of the size
        figure.savefig(output)
