"""Results against the truth as a folder to look at: all boxes of every moment, and the images of many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np
from tqdm import tqdm

from bevformer_ros import geometry
from bevformer_ros.config import RigConfig
from bevformer_ros.drawing import panel_order, rectified, write_picture
from bevformer_ros.evaluation.report_page import Moment, ReportContent, Run, TimelineEntry, View, write_report
from bevformer_ros.ros.bag.evaluation import Evaluation
from bevformer_ros.ros.bag.files import BagReader
from bevformer_ros.ros.bag.results import EgoFrame
from bevformer_ros.ros.bag.scene import BagScene
from bevformer_ros.ros.conversions import stamp_to_ns
from bevformer_ros.ros.messages import DetectorStatus
from bevformer_ros.ros.topics import OUTPUT_STATUS, BoxTopics
from bevformer_ros.ros.transform_tree import NoTransformError
from bevformer_ros.types import SECOND_NS
from bevformer_ros.unfinished import written_whole

_UNTRAINED = "UNTRAINED network (random weights): its boxes mean nothing"


@dataclass(frozen=True)
class Pictures:
    """What is drawn of the moments."""

    most: int = 300
    """Moments that get pictures at most, evenly chosen."""
    score: float = 0.3
    """Boxes of lower scores are hidden until the reader asks for them."""
    width: int = 480
    """Of one camera's view in pixels."""

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ValueError(f"frames is {self.most}, expected at least 1")


def report(
    folder: Path,
    runs: Sequence[Evaluation],
    drives: Sequence[Path],
    rig: RigConfig,
    truth: BoxTopics,
    pictures: Pictures,
) -> None:
    """Write the report of one run or two over the same drives into a folder that is not there until it is complete.

    Raises ValueError where the folder is there, or the runs are not about the same drives.
    """
    if folder.exists():
        raise ValueError(f"{folder} exists already; remove it or name another folder")
    with written_whole(folder) as partial:
        _write(partial, runs, drives, rig, truth, pictures)


def _write(
    folder: Path,
    runs: Sequence[Evaluation],
    drives: Sequence[Path],
    rig: RigConfig,
    truth: BoxTopics,
    pictures: Pictures,
) -> None:
    summaries = [run for evaluation in runs for run in evaluation.runs.values()]
    (folder / "frames").mkdir(parents=True)
    share = max(1, pictures.most // len(drives))
    moments: list[Moment] = []
    for drive, part in zip(drives, runs[0].scenes.values(), strict=True):
        stamps = [sample.truth.stamp_ns for sample in part.samples]
        moments += _moments(folder, drive, stamps, rig, truth.boxes, share, pictures.width)
    content = ReportContent(
        title=f"{', '.join(sorted({run.model for run in summaries})) or 'results'} on "
        f"{', '.join(drive.name for drive in drives)}",
        warning="" if all(run.trained for run in summaries) else _UNTRAINED,
        moments=moments,
        runs=[_run(evaluation) for evaluation in runs],
        threshold=pictures.score,
    )
    write_report(folder, content)


def _moments(
    folder: Path, drive: Path, stamps: Sequence[int], rig: RigConfig, topic: str, most: int, width: int
) -> Iterator[Moment]:
    pictured = set(np.linspace(0, len(stamps) - 1, min(most, len(stamps))).astype(int).tolist())
    with BagReader(drive) as driven:
        scene = BagScene(driven, rig)
        ego = EgoFrame(scene.transforms, rig)
        for index, stamp_ns in enumerate(tqdm(stamps, desc=f"drawing {drive.name}", unit="frame")):
            views = _views_or_none(folder, drive, scene, stamp_ns, width) if index in pictured else []
            seconds = (stamp_ns - driven.start_ns) / SECOND_NS
            yield Moment(drive, topic, stamp_ns, seconds, ego.pose(stamp_ns), views)


def _views_or_none(folder: Path, drive: Path, scene: BagScene, stamp_ns: int, width: int) -> list[View]:
    """None of a moment that the bag does not show."""
    try:
        return _views(folder, f"{drive.name}-{stamp_ns}", scene, stamp_ns, width)
    except (ValueError, NoTransformError):
        return []


def _views(folder: Path, name: str, scene: BagScene, stamp_ns: int, width: int) -> list[View]:
    frame, bev_from_base = scene.frame(stamp_ns), geometry.invert(scene.base_from_bev(stamp_ns))
    cameras = {camera.name: camera for camera in frame.cameras if camera is not None}
    views = []
    for camera in (cameras[name] for name in panel_order(list(cameras))):
        picture = f"frames/{quote(f'{name}-{camera.name}', safe='')}.jpg"
        scale = width / camera.image.shape[1]
        height = round(camera.image.shape[0] * scale)
        resized = cv2.resize(rectified(camera), (width, height), interpolation=cv2.INTER_AREA)
        write_picture(folder / picture, np.asarray(resized, np.uint8))
        intrinsics = geometry.scaled_intrinsics(camera.rectified_intrinsics, scale)
        views.append(View(camera.name, picture, (width, height), intrinsics, camera.camera_from_bev @ bev_from_base))
    return views


def _timeline(result: Path) -> Iterator[TimelineEntry]:
    with BagReader(result) as results:
        if OUTPUT_STATUS not in results.topics:
            return
        dropped_before = 0
        for _, status in results.objects({OUTPUT_STATUS: (DetectorStatus,)}):
            dropped = sum(count.count for count in status.sets_dropped)
            if not status.latencies and dropped == dropped_before:
                continue  # between two sets
            seconds = stamp_to_ns(status.header.stamp) / SECOND_NS
            yield TimelineEntry(seconds, status.total_latency_ms, "dropped" if dropped > dropped_before else "")
            dropped_before = dropped


def _run(found: Evaluation) -> Run:
    scores, runs = found.scores, list(found.runs.values())
    cards = [("NDS", f"{scores.nds:.3f}"), ("mAP", f"{scores.mean_ap:.3f}")]
    cards += [(name, "n/a" if np.isnan(value) else f"{value:.3f}") for name, value in scores.errors.items()]
    cards += [("samples", f"{len(found.samples)}"), ("without result", f"{found.missing}")]
    cards += [("sets processed", f"{sum(run.processed for run in runs)}")]
    cards += [("sets dropped", f"{sum(sum(run.dropped.values()) for run in runs)}")]
    return Run(
        name=", ".join(Path(result).name for result in found.scenes),
        cards=cards,
        scores=scores,
        samples=found.samples,
        processed=[sample.token not in scene.missing for scene in found.scenes.values() for sample in scene.samples],
        timeline=[entry for result in found.scenes for entry in _timeline(Path(result))],
        stages=[(entry.stage, entry.median, entry.percentile_95) for run in runs[:1] for entry in run.stages],
    )
