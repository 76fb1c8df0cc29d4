"""Scores as text for a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping

from bevformer_ros.evaluation.protocol import ERROR_NAMES, Scores


def score_table(scores: Scores, samples: int) -> str:
    """Summary, then a row for each class, then what the reader has to know about them."""
    lines = [f"{'samples':<22}{samples}", f"{'mAP':<22}{scores.mean_ap:.4f}"]
    lines += [f"{name:<22}{'n/a' if math.isnan(value) else f'{value:.4f}'}" for name, value in scores.errors.items()]
    lines += [f"{'NDS':<22}{scores.nds:.4f}", ""]
    distances = list(next(iter(scores.classes.values())).aps)
    columns = ["AP", *(f"AP {distance:g}m" for distance in distances), *(name[1:] for name in ERROR_NAMES.values())]
    lines.append(f"{'class':<22}{'truth':>6}{'boxes':>7}" + "".join(f"{column:>8}" for column in columns))
    for name, entry in scores.classes.items():
        values = [entry.ap, *entry.aps.values(), *entry.errors.values()]
        numbers = "".join(f"{'-' if math.isnan(value) else f'{value:.3f}':>8}" for value in values)
        lines.append(f"{name:<22}{entry.truths:>6}{entry.detections:>7}{numbers}")
    best_scores = [entry.best_score for entry in scores.classes.values()]
    if not any(map(math.isnan, best_scores)):
        words = ",".join(f"{best_score:.2f}" for best_score in best_scores)
        lines.append(f"Best F1 to 2 m, each class from its score on: --score-threshold {words}")
    absent = [name for name, entry in scores.classes.items() if entry.truths == 0]
    if absent:
        lines.append(f"No truth of {', '.join(absent)}: each counts as AP 0 and errors 1, as in the benchmark.")
    if math.isnan(scores.errors["mAVE"]):
        lines.append("The results hold no velocities: mAVE is not known, and counts in NDS as if all were wrong.")
    return "\n".join(lines)


def part_table(parts: Mapping[str, Scores]) -> str:
    """A row for each part of the samples, such as a scene or a range of distances."""
    width = max(len(name) for name in parts) + 2
    lines = [f"{'':<{width}}{'truth':>7}{'boxes':>7}{'mAP':>8}{'mATE':>8}{'mAOE':>8}{'mAVE':>8}{'NDS':>8}"]
    for name, scores in parts.items():
        truths = sum(entry.truths for entry in scores.classes.values())
        boxes = sum(entry.detections for entry in scores.classes.values())
        values = (scores.mean_ap, *(scores.errors[error] for error in ("mATE", "mAOE", "mAVE")), scores.nds)
        numbers = "".join(f"{'n/a' if math.isnan(value) else f'{value:.3f}':>8}" for value in values)
        lines.append(f"{name:<{width}}{truths:>7}{boxes:>7}{numbers}")
    return "\n".join(lines)
