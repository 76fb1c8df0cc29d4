"""The nuScenes detection protocol (Caesar et al. 2020, section 3.1), computed by nuscenes-devkit's own functions.

Boxes are compared in the ego frame: errors do not depend on where the world's origin lies, and ranges count from the
ego. The devkit compares in the global frame; the two differ by the tilt of the road alone (the cosine of a few
degrees). For a number to be published, write a submission and let the devkit evaluate it.

A box is a hit if its centre lies nearer than a distance, over ground, to a free object of its class. `score` asks
this at 0.5, 1, 2 and 4 m, and AP is the mean of the four: boxes that are found but placed badly show as a high AP at
4 m and a low one at 0.5 m. The errors (mATE and the others) are those of the hits at 2 m, averaged over recall. A class
without heading, motion or attributes has no such error (`_UNDEFINED`) and is left out of its mean. `table.score_table`
prints a row for each class: objects and boxes within range, the mean AP, the AP at each distance, the errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bevformer_ros.taxonomy import ATTRIBUTE_NAMES, CLASS_NAMES, NO_ATTRIBUTE
from bevformer_ros.types import Detections3D

try:
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.common.data_classes import EvalBoxes
    from nuscenes.eval.detection.algo import accumulate, calc_ap, calc_tp
    from nuscenes.eval.detection.constants import TP_METRICS
    from nuscenes.eval.detection.data_classes import (
        DetectionBox,
        DetectionConfig,
        DetectionMetricData,
        DetectionMetrics,
    )
except ImportError as error:
    raise ImportError(
        f"{error}: the metrics are nuscenes-devkit's; `make env` installs it, or: pip install --no-deps "
        "nuscenes-devkit pyquaternion cachetools && pip install matplotlib scikit-learn"
    ) from error

# The devkit's names of the errors, and those of the papers.
ERROR_NAMES = {"trans_err": "mATE", "scale_err": "mASE", "orient_err": "mAOE", "vel_err": "mAVE", "attr_err": "mAAE"}
# What the benchmark does not define: a cone has no front, neither it nor a barrier moves or has attributes.
_UNDEFINED = {"traffic_cone": ("orient_err", "vel_err", "attr_err"), "barrier": ("vel_err", "attr_err")}

_F1_DISTANCE = 2.0  # metres, as the errors


@dataclass(frozen=True)
class EvaluationSample:
    """Boxes and the truth about them at one time, both in the ego frame (x forward, level, origin at the ego).

    velocity_known: (truths,), where false a true velocity is not compared with. object_ids: of the truth, the same
    for an object at all times; empty where it has none. visibility: of the truth, 1 to 4 as nuScenes grades it, 0 where
    it is not known; None where none is.
    """

    token: str
    detections: Detections3D
    truth: Detections3D
    velocity_known: NDArray[np.bool_]
    object_ids: tuple[str, ...] = ()
    visibility: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Curve:
    """(101,) each, over recalls 0 to 1. Precision and score are 0 beyond the recall that was reached."""

    recall: NDArray[np.float64]
    precision: NDArray[np.float64]
    score: NDArray[np.float64]


@dataclass(frozen=True)
class ClassScores:
    """aps and curves by match distance in metres. errors by mATE, mASE, ...: NaN where the benchmark has none.

    truths, detections: boxes within the class range.
    """

    aps: dict[float, float]
    errors: dict[str, float]
    truths: int
    detections: int
    curves: dict[float, Curve]

    @property
    def ap(self) -> float:
        return float(np.mean(list(self.aps.values())))

    @property
    def best_score(self) -> float:
        """From which score on the boxes have the best F1, hits counted to 2 m. NaN where there is no hit."""
        curve = self.curves[_F1_DISTANCE]
        sums = curve.precision + curve.recall
        f1 = np.divide(2 * curve.precision * curve.recall, sums, out=np.zeros_like(sums), where=sums > 0)
        return float(curve.score[f1.argmax()]) if f1.any() else float("nan")


@dataclass(frozen=True)
class Scores:
    """As the devkit has it, a class without truth has an AP of 0 and errors of 1, and counts as the others."""

    mean_ap: float
    nds: float
    errors: dict[str, float]
    classes: dict[str, ClassScores]

    def as_json(self) -> dict[str, Any]:
        """For a file: without the curves, None for what is not defined."""
        content = asdict(self)
        content["errors"] = {name: None if np.isnan(value) else value for name, value in self.errors.items()}
        for name, entry in content["classes"].items():
            del entry["curves"]
            entry["ap"] = self.classes[name].ap
            best_score = self.classes[name].best_score
            entry["best_score"] = None if np.isnan(best_score) else best_score
            entry["aps"] = {str(distance): ap for distance, ap in entry["aps"].items()}
            entry["errors"] = {key: None if np.isnan(value) else value for key, value in entry["errors"].items()}
        return content


def protocol() -> DetectionConfig:
    """The benchmark's settings since 2019."""
    return config_factory("detection_cvpr_2019")


def score(samples: Sequence[EvaluationSample], with_velocities: bool = True) -> Scores:
    """mAP, errors and NDS over all samples together. Raises ValueError without samples.

    with_velocities: whether the detections have any; without, mAVE is NaN and counts in NDS as if they were all wrong.
    """
    if not samples:
        raise ValueError("there is nothing to evaluate: no time at which both boxes and the truth are known")
    config = protocol()
    truth, found = EvalBoxes(), EvalBoxes()
    for sample in samples:
        velocities = np.where(sample.velocity_known[:, None], sample.truth.velocities, np.nan)
        truth.add_boxes(sample.token, _eval_boxes(sample.token, sample.truth, velocities, config))
        boxes = best(sample.detections, config.max_boxes_per_sample)
        found.add_boxes(sample.token, _eval_boxes(sample.token, boxes, boxes.velocities, config))
    metrics = DetectionMetrics(config)
    curves = {}
    for name in CLASS_NAMES:
        for distance in config.dist_ths:
            data = accumulate(truth, found, name, config.dist_fcn_callable, distance)
            metrics.add_label_ap(name, distance, calc_ap(data, config.min_recall, config.min_precision))
            curves[name, distance] = Curve(data.recall, data.precision, data.confidence)
            if distance == config.dist_th_tp:
                for error in TP_METRICS:
                    known = with_velocities or error != "vel_err"
                    metrics.add_label_tp(name, error, _true_positive_error(data, name, error, known, config))
    scores = Scores(
        mean_ap=metrics.mean_ap,
        nds=float(metrics.nd_score),
        errors={ERROR_NAMES[name]: float(value) for name, value in metrics.tp_errors.items()},
        classes={
            name: ClassScores(
                aps={distance: metrics.get_label_ap(name, distance) for distance in config.dist_ths},
                errors={ERROR_NAMES[error]: metrics.get_label_tp(name, error) for error in TP_METRICS},
                truths=sum(box.detection_name == name for box in truth.all),
                detections=sum(box.detection_name == name for box in found.all),
                curves={distance: curves[name, distance] for distance in config.dist_ths},
            )
            for name in CLASS_NAMES
        },
    )
    return scores if with_velocities else _without_velocities(scores)


def _true_positive_error(
    data: DetectionMetricData, name: str, error: str, known: bool, config: DetectionConfig
) -> float:
    """What is not known counts as wrong, what the benchmark does not define not at all."""
    if error in _UNDEFINED.get(name, ()):
        return float("nan")
    return float(calc_tp(data, config.min_recall, error)) if known else 1.0


def _without_velocities(scores: Scores) -> Scores:
    unknown = {ERROR_NAMES["vel_err"]: float("nan")}
    classes = {name: replace(entry, errors=entry.errors | unknown) for name, entry in scores.classes.items()}
    return replace(scores, errors=scores.errors | unknown, classes=classes)


def in_range(boxes: Detections3D, config: DetectionConfig) -> NDArray[np.bool_]:
    """(n,) whether the benchmark looks at boxes of the ego frame."""
    ranges = np.array([config.class_range[name] for name in CLASS_NAMES])
    return np.linalg.norm(boxes.centers[:, :2], axis=1) < ranges[boxes.labels]


def best(boxes: Detections3D, count: int) -> Detections3D:
    """At most so many, by score."""
    return boxes if len(boxes) <= count else boxes.select(np.argsort(-boxes.scores, kind="stable")[:count])


def _eval_boxes(
    token: str, boxes: Detections3D, velocities: NDArray[np.float64], config: DetectionConfig
) -> list[DetectionBox]:
    return [_eval_box(token, boxes, row, velocities[row]) for row in np.flatnonzero(in_range(boxes, config))]


def _eval_box(token: str, boxes: Detections3D, row: int, velocity: NDArray[np.float64]) -> DetectionBox:
    length, width, height = boxes.sizes[row]
    half, attribute = boxes.yaws[row] / 2, boxes.attributes[row]
    return DetectionBox(
        sample_token=token,
        translation=tuple(boxes.centers[row]),
        size=(width, length, height),
        rotation=(np.cos(half), 0.0, 0.0, np.sin(half)),
        velocity=tuple(velocity),
        ego_translation=tuple(boxes.centers[row]),
        detection_name=CLASS_NAMES[boxes.labels[row]],
        detection_score=float(boxes.scores[row]),
        attribute_name="" if attribute == NO_ATTRIBUTE else ATTRIBUTE_NAMES[attribute],
    )
