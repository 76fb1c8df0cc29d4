"""The data of a report, and the folder that shows them: opened from the file system, it needs no server.

The page is config/report/; it draws everything from data.js, which is written here. Its charts are uPlot's (MIT).
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from bevformer_ros.evaluation.matching import heading_errors, match
from bevformer_ros.evaluation.protocol import EvaluationSample, Scores, in_range, protocol
from bevformer_ros.resources import share_directory
from bevformer_ros.taxonomy import CLASSES
from bevformer_ros.types import SECOND_NS, Detections3D


@dataclass(frozen=True)
class View:
    """A rectified camera image of a moment. picture: a file name relative to the folder. size: width, height.
    intrinsics: (3, 3) in its pixels. camera_from_ego: (4, 4) from the ego at the moment's stamp."""

    camera: str
    picture: str
    size: tuple[int, int]
    intrinsics: NDArray[np.float64]
    camera_from_ego: NDArray[np.float64]


@dataclass(frozen=True)
class Moment:
    """When there is a truth: where to find it again, what was true, what was seen.

    topic: of the truth in the bag. seconds: since the bag's start. world_from_ego: (4, 4). views: empty where no
    picture was made.
    """

    bag: Path
    topic: str
    stamp_ns: int
    seconds: float
    world_from_ego: NDArray[np.float64]
    views: Sequence[View]


@dataclass(frozen=True)
class TimelineEntry:
    """One set. milliseconds: from the last image to the boxes; dropped: the reason, empty where it was processed."""

    seconds: float
    milliseconds: float
    dropped: str


@dataclass(frozen=True)
class Run:
    """One detector's results at every moment. cards: (name, value) for the top of the page. processed: whether the
    detector had the moment's images. stages: (name, median, 95th percentile) in milliseconds."""

    name: str
    cards: Sequence[tuple[str, str]]
    scores: Scores
    samples: Sequence[EvaluationSample]
    processed: Sequence[bool]
    timeline: Sequence[TimelineEntry]
    stages: Sequence[tuple[str, float, float]]


@dataclass(frozen=True)
class ReportContent:
    """One run, or two to compare, over the same moments. threshold: the least score shown at first."""

    title: str
    warning: str
    moments: Sequence[Moment]
    runs: Sequence[Run]
    threshold: float

    def __post_init__(self) -> None:
        for run in self.runs:
            if [sample.token for sample in run.samples] != [sample.token for sample in self.runs[0].samples]:
                raise ValueError(
                    f"{run.name} and {self.runs[0].name} have different truths; only results on the same bags, in the "
                    "same order, can be compared"
                )


def write_report(folder: Path, content: ReportContent) -> None:
    """Into a folder that holds the pictures already."""
    for file in (share_directory() / "config" / "report").iterdir():
        shutil.copyfile(file, folder / file.name)
    data = json.dumps(report_data(content), allow_nan=False, separators=(",", ":"))
    (folder / "data.js").write_text(f"window.REPORT = {data};\n", encoding="utf-8")


def report_data(content: ReportContent) -> dict[str, Any]:
    """What the page draws."""
    truths = [_within_range(sample) for sample in content.runs[0].samples]
    return {
        "title": content.title,
        "warning": content.warning,
        "threshold": content.threshold,
        "classes": [{"name": entry.name, "colour": "#{:02x}{:02x}{:02x}".format(*entry.colour)} for entry in CLASSES],
        "frames": [_frame(moment, sample) for moment, sample in zip(content.moments, truths, strict=True)],
        "runs": [_run(run) for run in content.runs],
    }


def _within_range(sample: EvaluationSample) -> EvaluationSample:
    """Without what the benchmark does not look at."""
    config = protocol()
    seen = in_range(sample.truth, config)
    return EvaluationSample(
        sample.token,
        sample.detections.select(in_range(sample.detections, config)),
        sample.truth.select(seen),
        sample.velocity_known[seen],
        tuple(np.array(sample.object_ids, object)[seen]) if sample.object_ids else (),
        None if sample.visibility is None else sample.visibility[seen],
    )


def _frame(moment: Moment, sample: EvaluationSample) -> dict[str, Any]:
    """The truth as rows of statistics.js; last stand the object's id and its visibility."""
    identities = sample.object_ids or ("",) * len(sample.truth)
    visibility = [0] * len(sample.truth) if sample.visibility is None else sample.visibility.tolist()
    last = zip(identities, visibility, strict=True)
    velocities = np.where(sample.velocity_known[:, None], sample.truth.velocities, np.nan)
    world = moment.world_from_ego
    heading = float(np.arctan2(world[1, 0], world[0, 0]))
    return {
        "bag": moment.bag.name,
        "path": shlex.quote(str(moment.bag)),
        "topic": shlex.quote(moment.topic),
        "stamp": f"{moment.stamp_ns // SECOND_NS}.{moment.stamp_ns % SECOND_NS:09d}",
        "seconds": moment.seconds,
        "ego": [round(float(world[0, 3]), 2), round(float(world[1, 3]), 2), round(heading, 4)],
        "truths": [[*row, *more] for row, more in zip(_rows(sample.truth, velocities), last, strict=True)],
        "views": [
            {
                "camera": view.camera,
                "picture": quote(view.picture),
                "width": view.size[0],
                "height": view.size[1],
                "intrinsics": np.round(view.intrinsics, 3).tolist(),
                "cameraFromEgo": np.round(view.camera_from_ego, 6).tolist(),
            }
            for view in moment.views
        ],
    }


def _run(run: Run) -> dict[str, Any]:
    written = run.scores.as_json()["classes"]
    return {
        "name": run.name,
        "cards": list(run.cards),
        "classes": [written[entry.name] for entry in CLASSES],
        "boxes": [_boxes(_within_range(sample)) for sample in run.samples],
        "processed": list(run.processed),
        "timeline": [vars(entry) for entry in run.timeline],
        "stages": list(run.stages),
    }


def _boxes(sample: EvaluationSample) -> list[list[float | None]]:
    """The detections as rows of statistics.js. Last stand the score, the row of the truth that it belongs to or -1, and
    the error of the heading in degrees or None."""
    found, truth = sample.detections, sample.truth
    matches = match(found, truth, protocol().dist_th_tp)
    hits, turned = np.full(len(found), -1), np.full(len(found), np.nan)
    hits[matches.detection] = matches.truth
    turned[matches.detection] = np.degrees(
        heading_errors(found.yaws[matches.detection], truth.yaws[matches.truth], truth.labels[matches.truth])
    )
    last = zip(np.round(found.scores, 3).tolist(), hits.tolist(), _known(np.round(turned, 1)), strict=True)
    return [[*row, *more] for row, more in zip(_rows(found, found.velocities), last, strict=True)]


def _rows(boxes: Detections3D, velocities: NDArray[np.float64]) -> list[list[float | None]]:
    """label, x, y, z, length, width, height, yaw, vx, vy; a velocity that is not known is None."""
    values = np.round(np.column_stack([boxes.centers, boxes.sizes, boxes.yaws, velocities]), 2)
    return [[int(label), *_known(row)] for label, row in zip(boxes.labels, values, strict=True)]


def _known(values: NDArray[np.float64]) -> list[float | None]:
    return [None if np.isnan(value) else value for value in values.tolist()]
