"""What the arms of an ablation came to, as tables in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from bevformer_ros.evaluation.breakdown import Interval, Scenes, difference_interval
from bevformer_ros.evaluation.common_objects import ERRORS, common_objects

_COLUMNS = ("mAP", "frequent", "NDS", "mATE", "mAOE", "mAVE", "minutes")
_FREQUENT_SHARE = 0.05


@dataclass(frozen=True)
class Run:
    """result: the content of the run's file. scenes: what was scored, by world."""

    result: Mapping[str, Any]
    scenes: Scenes

    @property
    def mean_ap(self) -> float:
        return float(self.result["scores"]["mean_ap"])

    @property
    def frequent_classes(self) -> list[str]:
        """Those that more than one object in twenty belongs to; the AP of the others hangs on a few objects."""
        classes = self.result["scores"]["classes"]
        objects = sum(entry["truths"] for entry in classes.values())
        return [name for name, entry in classes.items() if entry["truths"] > _FREQUENT_SHARE * objects]

    def figures(self) -> dict[str, float]:
        """By column."""
        scores = self.result["scores"]
        aps = [scores["classes"][name]["ap"] for name in self.frequent_classes]
        return {
            "mAP": self.mean_ap,
            "frequent": mean(aps) if aps else math.nan,
            "NDS": scores["nds"],
            **scores["errors"],
            "minutes": self.result["training_seconds"] / 60,
        }


def scores_table(runs: Mapping[int, Mapping[str, Run]]) -> str:
    """Mean and standard deviation over the seeds of each arm. runs: by seed and arm."""
    arms = list(dict.fromkeys(arm for found in runs.values() for arm in found))
    lines = [f"| arm | seeds | {' | '.join(_COLUMNS)} |", f"|---|{'---|' * (len(_COLUMNS) + 1)}"]
    frequent: list[str] = []
    for arm in arms:
        entries = [found[arm] for found in runs.values() if arm in found]
        frequent = entries[0].frequent_classes
        figures = [entry.figures() for entry in entries]
        cells = [_cell([each[column] for each in figures]) for column in _COLUMNS]
        lines.append(f"| {arm} | {len(entries)} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"frequent: mAP of {', '.join(frequent)}"])


def differences_table(runs: Mapping[str, Run], than: Mapping[str, str]) -> str:
    """Each arm of a seed less the one that it is compared with, with the interval in which 95 % of the draws of worlds
    lie: mAP, and the mean errors on the objects that all arms find. Empty where no two arms compare."""
    pairs = [(arm, other) for arm, other in than.items() if arm in runs and other in runs]
    if not pairs:
        return ""
    scenes = {arm: run.scenes for arm, run in runs.items()}
    common = common_objects(scenes)
    lines = [f"| arm | {' | '.join(ERRORS)} |", f"|---|{'---|' * len(ERRORS)}"]
    for arm in runs:
        lines.append(f"| {arm} | {' | '.join(f'{value:.3f}' for value in common.means(arm).values())} |")
    lines += ["", f"| difference | mAP | {' | '.join(ERRORS)} |", f"|---|{'---|' * (len(ERRORS) + 1)}"]
    for arm, other in pairs:
        changes = [difference_interval(scenes[other], scenes[arm]), *common.differences(other, arm).values()]
        lines.append(f"| {arm} - {other} | {' | '.join(map(_change, changes))} |")
    return "\n".join([f"On the {len(common)} objects that {', '.join(runs)} find:", "", *lines])


def _change(interval: Interval) -> str:
    return f"{interval.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"


def _cell(values: Sequence[float]) -> str:
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")
