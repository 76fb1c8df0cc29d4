"""The nuScenes tracking protocol (AMOTA: Weng et al. 2020), computed by nuscenes-devkit's own code.

The reading of files is ours, and the filling of gaps: tracks that are gone for a while and come back are interpolated,
those of the truth too. Seven classes take part; barriers, cones and construction vehicles do not.
"""

from __future__ import annotations

import warnings
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bevformer_ros.taxonomy import CLASS_NAMES
from bevformer_ros.types import Detections3D

try:
    import motmetrics  # noqa: F401 (without it the devkit's own import raises unittest.SkipTest)
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.tracking.data_classes import TrackingBox, TrackingConfig
    from nuscenes.eval.tracking.evaluate import TrackingEval
    from nuscenes.eval.tracking.loaders import interpolate_tracking_boxes
except ImportError as error:
    raise ImportError(
        f"{error}: the metrics are nuscenes-devkit's; `make env` installs it, or: pip install --no-deps "
        "nuscenes-devkit pyquaternion cachetools && pip install matplotlib scikit-learn motmetrics 'pandas<3'"
    ) from error

# In the order of the table: what the devkit calls them.
SUMS = ("ids", "frag", "tp", "fp", "fn")
MEANS = ("amota", "amotp", "recall", "mota", "motp")


@dataclass(frozen=True)
class IdentifiedBoxes:
    """Boxes with what they are called. ids: (n,) the same for one object from set to set."""

    boxes: Detections3D
    ids: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.boxes):
            raise ValueError(f"there are {len(self.boxes)} boxes but {len(self.ids)} ids")


@dataclass(frozen=True)
class TrackedSample:
    """Tracks and the truth about them at one time, in a frame that stays put. ego: (3,) where ranges count from."""

    stamp_ns: int
    tracks: IdentifiedBoxes
    truth: IdentifiedBoxes
    ego: NDArray[np.float64]


@dataclass(frozen=True)
class TrackingScores:
    """summary: AMOTA and the like over all classes, means or sums as the benchmark has them; classes: by class that has
    truth. ids: identity switches, frag: interruptions, at the score with the best MOTA."""

    summary: dict[str, float]
    classes: dict[str, dict[str, float]]
    samples: int

    def text(self) -> str:
        """For a terminal."""
        lines = [
            f"{'samples':<14}{self.samples}",
            f"{'class':<14}" + "".join(f"{name.upper():>9}" for name in _COLUMNS),
        ]
        for name, row in [*self.classes.items(), ("all", self.summary)]:
            numbers = (f"{row[key]:>9.0f}" if key in SUMS else f"{row[key]:>9.3f}" for key in _COLUMNS)
            lines.append(f"{name:<14}" + "".join(numbers))
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """For a file; None for what is not defined."""
        summary = {name: None if np.isnan(value) else value for name, value in self.summary.items()}
        return {"samples": self.samples, **summary, "classes": self.classes}


_COLUMNS = (*MEANS, *SUMS)


class _Evaluation(TrackingEval):
    """The devkit's evaluation of tracks that are in memory already."""

    def __init__(self, config: TrackingConfig, truth: _Tracks, tracks: _Tracks) -> None:
        self.cfg, self.tracks_gt, self.tracks_pred = config, truth, tracks
        self.verbose, self.output_dir = False, ""
        self.render_classes: list[str] = []


# By scene and stamp, as the devkit has them.
_Tracks = dict[str, dict[int, list[TrackingBox]]]


def score_tracks(scenes: Mapping[str, Sequence[TrackedSample]]) -> TrackingScores:
    """Over all samples of all scenes, those of a scene in the order of time. Raises ValueError without samples."""
    if not any(scenes.values()):
        raise ValueError("there is nothing to evaluate: no time at which both tracks and the truth are known")
    config = config_factory("tracking_nips_2019")
    truth, tracks = {}, {}
    for scene, samples in scenes.items():
        truth[scene] = _interpolated({entry.stamp_ns: _boxes(entry, entry.truth, config) for entry in samples})
        found = {entry.stamp_ns: _boxes(entry, entry.tracks, config) for entry in samples}
        _give_tracks_their_mean_score(found)
        tracks[scene] = _interpolated(found)
    with warnings.catch_warnings():  # means over classes without truth
        warnings.simplefilter("ignore")
        metrics, _ = _Evaluation(config, truth, tracks).evaluate()
        summary = {name: metrics.compute_metric(name) for name in _COLUMNS}
    present = {box.tracking_name for scene in truth.values() for boxes in scene.values() for box in boxes}
    classes = {
        name: {key: metrics.compute_metric(key, name) for key in _COLUMNS} for name in CLASS_NAMES if name in present
    }
    return TrackingScores(summary, classes, sum(map(len, scenes.values())))


def _boxes(sample: TrackedSample, identified: IdentifiedBoxes, config: TrackingConfig) -> list[TrackingBox]:
    """Those of the benchmark's classes within their ranges."""
    boxes, entries = identified.boxes, []
    for row, identity in enumerate(identified.ids):
        name = CLASS_NAMES[boxes.labels[row]]
        from_ego = boxes.centers[row] - sample.ego
        if name not in config.class_range or np.linalg.norm(from_ego[:2]) >= config.class_range[name]:
            continue
        length, width, height = boxes.sizes[row]
        half = boxes.yaws[row] / 2
        entries.append(
            TrackingBox(
                sample_token=str(sample.stamp_ns),
                translation=tuple(boxes.centers[row]),
                size=(width, length, height),
                rotation=(np.cos(half), 0.0, 0.0, np.sin(half)),
                velocity=tuple(boxes.velocities[row]),
                ego_translation=tuple(from_ego),
                tracking_id=identity,
                tracking_name=name,
                tracking_score=float(boxes.scores[row]),
            )
        )
    return sorted(entries, key=lambda box: -box.tracking_score)[: config.max_boxes_per_sample]


def _give_tracks_their_mean_score(by_stamp: dict[int, list[TrackingBox]]) -> None:
    """As the benchmark wants it, before tracks are interpolated."""
    scores = defaultdict(list)
    for box in _all(by_stamp):
        scores[box.tracking_id].append(box.tracking_score)
    for box in _all(by_stamp):
        box.tracking_score = float(np.mean(scores[box.tracking_id]))


def _all(by_stamp: dict[int, list[TrackingBox]]) -> list[TrackingBox]:
    return [box for boxes in by_stamp.values() for box in boxes]


def _interpolated(by_stamp: dict[int, list[TrackingBox]]) -> dict[int, list[TrackingBox]]:
    """The gaps of each track filled in, each box weighed by how near it is in time.

    The devkit's interpolate_tracks weighs them the other way round (nutonomy/nuscenes-devkit#1141): in a gap of more
    than one set the object goes backwards, and a track that is where the object really was counts as false.
    """
    seen = defaultdict[str, list[tuple[int, TrackingBox]]](list)
    for stamp_ns, boxes in by_stamp.items():
        for box in boxes:
            seen[box.tracking_id].append((stamp_ns, box))
    stamps = list(by_stamp)
    filled = {stamp_ns: list(boxes) for stamp_ns, boxes in by_stamp.items()}
    for track in seen.values():
        for (before_ns, before), (after_ns, after) in pairwise(track):
            for stamp_ns in stamps[bisect_right(stamps, before_ns) : bisect_left(stamps, after_ns)]:
                share = (stamp_ns - before_ns) / (after_ns - before_ns)
                filled[stamp_ns].append(interpolate_tracking_boxes(before, after, share))
    return filled
