"""The numbers of a report, and the folder that shows them: opened from the file system, it needs no server.

The page is config/report/; it draws everything from data.js, which is written here.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bevformer_ros.evaluation.matching import Matches, heading_errors, match
from bevformer_ros.evaluation.protocol import EvaluationSample, Scores, in_range, protocol
from bevformer_ros.resources import share_directory
from bevformer_ros.taxonomy import CLASS_NAMES, CLASSES

_DISTANCE_EDGES = np.arange(0.0, 51.0, 10.0)
_MOST_MISSES = 200


@dataclass(frozen=True)
class ReportFrame:
    """A sample that has a picture, a file name relative to the folder. processed: whether the detector had it."""

    sample: EvaluationSample
    name: str
    picture: str
    processed: bool


@dataclass(frozen=True)
class TimelineEntry:
    """One set. milliseconds: from the last image to the boxes; dropped: the reason, empty where it was processed."""

    seconds: float
    milliseconds: float
    dropped: str


@dataclass(frozen=True)
class ReportContent:
    """cards: (name, value) for the top of the page. stages: (name, median, 95th percentile) in milliseconds."""

    title: str
    warning: str
    cards: Sequence[tuple[str, str]]
    scores: Scores
    samples: Sequence[EvaluationSample]
    frames: Sequence[ReportFrame]
    timeline: Sequence[TimelineEntry]
    stages: Sequence[tuple[str, float, float]]


def write_report(folder: Path, content: ReportContent) -> None:
    """Into a folder that holds the frames' pictures already."""
    for file in (share_directory() / "config" / "report").iterdir():
        shutil.copyfile(file, folder / file.name)
    data = json.dumps(report_data(content), allow_nan=False)
    (folder / "data.js").write_text(f"window.REPORT = {data};\n", encoding="utf-8")


def report_data(content: ReportContent) -> dict[str, Any]:
    """What report.js draws."""
    facts = [_frame_facts(frame) for frame in content.frames]
    misses = [(distance, name, index) for index, (_, missed) in enumerate(facts) for name, distance in missed]
    return {
        "title": content.title,
        "warning": content.warning,
        "cards": list(content.cards),
        "classes": _classes(content.scores),
        "distances": distance_charts(content.samples),
        "timeline": [vars(entry) for entry in content.timeline],
        "stages": list(content.stages),
        "frames": [facts_of_frame for facts_of_frame, _ in facts],
        "misses": [
            {"distance": distance, "name": name, "frame": index}
            for distance, name, index in sorted(misses)[:_MOST_MISSES]
        ],
    }


def _classes(scores: Scores) -> list[dict[str, Any]]:
    written = scores.as_json()["classes"]
    return [
        {
            "name": entry.name,
            "colour": "#{:02x}{:02x}{:02x}".format(*entry.colour),
            "precision": {
                str(distance): np.round(curve.precision, 4).tolist()
                for distance, curve in scores.classes[entry.name].curves.items()
            },
            **written[entry.name],
        }
        for entry in CLASSES
    ]


def _matched(sample: EvaluationSample) -> tuple[EvaluationSample, Matches]:
    """The sample without what lies out of range, and what belongs together at the distance of the TP errors."""
    config = protocol()
    seen = in_range(sample.truth, config)
    within = EvaluationSample(
        sample.token,
        sample.detections.select(in_range(sample.detections, config)),
        sample.truth.select(seen),
        sample.velocity_known[seen],
    )
    return within, match(within.detections, within.truth, config.dist_th_tp)


def _frame_facts(frame: ReportFrame) -> tuple[dict[str, Any], list[tuple[str, float]]]:
    """For the page; and class and distance of what was missed. A near miss is worse than a far one."""
    within, matches = _matched(frame.sample)
    distances = np.linalg.norm(within.truth.centers[matches.missed, :2], axis=1)
    names = [CLASS_NAMES[label] for label in within.truth.labels[matches.missed]]
    facts = {
        "name": frame.name,
        "picture": frame.picture,
        "processed": frame.processed,
        "truths": len(within.truth),
        "hits": len(matches.truth),
        "missed": len(matches.missed),
        "spurious": len(matches.spurious),
        "badness": float(np.maximum(0.0, 1.0 - distances / _DISTANCE_EDGES[-1]).sum()),
    }
    return facts, list(zip(names, distances.tolist(), strict=True))


def distance_charts(samples: Sequence[EvaluationSample]) -> list[dict[str, Any]]:
    """Bars over the distance of the object from the ego: how many there are, how many are found, how far off."""
    rows = [_errors(sample) for sample in samples]
    distances, found, *errors = (np.concatenate(column) for column in zip(*rows, strict=True))
    bins = np.digitize(distances, _DISTANCE_EDGES) - 1
    count = len(_DISTANCE_EDGES) - 1
    labels = [f"to {far:g} m" for far in _DISTANCE_EDGES[1:]]

    def chart(name: str, values: NDArray[np.float64], **extra: float) -> dict[str, Any]:
        means = [_mean(values[bins == index]) for index in range(count)]
        return {"name": name, "labels": labels, "values": means, **extra}

    objects = [float(np.count_nonzero(bins == index)) for index in range(count)]
    names = ("mean error of the place, m", "mean error of the heading, degrees", "mean error of the velocity, m/s")
    return [
        {"name": "objects", "labels": labels, "values": objects},
        chart("share of them that is found", found, most=1.0),
        *(chart(name, values) for name, values in zip(names, errors, strict=True)),
    ]


def _errors(sample: EvaluationSample) -> tuple[NDArray[np.float64], ...]:
    """(truths,) each: distance from the ego, 1 where found, errors of place, heading and velocity; NaN where there is
    none."""
    within, matches = _matched(sample)
    truth, detections = within.truth.select(matches.truth), within.detections.select(matches.detection)
    errors = np.full((3, len(within.truth)), np.nan)
    errors[0, matches.truth] = np.linalg.norm(detections.centers[:, :2] - truth.centers[:, :2], axis=1)
    errors[1, matches.truth] = np.degrees(heading_errors(detections.yaws, truth.yaws, truth.labels))
    apart = np.linalg.norm(detections.velocities - truth.velocities, axis=1)
    errors[2, matches.truth] = np.where(within.velocity_known[matches.truth], apart, np.nan)
    found = np.zeros(len(within.truth))
    found[matches.truth] = 1.0
    return np.linalg.norm(within.truth.centers[:, :2], axis=1), found, *errors


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
