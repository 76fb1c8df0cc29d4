"""Results against the truth as a folder to look at, with a picture of every moment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bevformer_ros import geometry
from bevformer_ros.config import RigConfig
from bevformer_ros.drawing import draw_surround, write_picture
from bevformer_ros.evaluation.matching import comparison
from bevformer_ros.evaluation.report_page import ReportContent, ReportFrame, TimelineEntry, write_report
from bevformer_ros.ros.bag.evaluation import Evaluation, evaluate
from bevformer_ros.ros.bag.files import BagReader, deserialize
from bevformer_ros.ros.bag.results import EgoFrame, nearest_stamp, read_boxes
from bevformer_ros.ros.bag.scene import BagScene
from bevformer_ros.ros.conversions import stamp_to_ns
from bevformer_ros.ros.topics import OUTPUT, OUTPUT_STATUS, BoxTopics
from bevformer_ros.types import SECOND_NS, Detections3D

_UNTRAINED = "UNTRAINED network (random weights): its boxes mean nothing"
_HIT_DISTANCE = 2.0  # metres


@dataclass(frozen=True)
class Pictures:
    """How many frames get a picture at most, evenly chosen; boxes of lower scores are left out of them."""

    most: int = 300
    score: float = 0.3
    width: int = 400

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ValueError(f"frames is {self.most}, expected at least 1")


def report(
    folder: Path, pairs: Sequence[tuple[Path, Path]], rig: RigConfig, truth: BoxTopics, pictures: Pictures
) -> Evaluation:
    """Write the report of (result, drive) pairs into a folder that is not there yet."""
    if folder.exists():
        raise ValueError(f"{folder} exists already; remove it or name another folder")
    found = evaluate(pairs, rig, truth)
    (folder / "frames").mkdir(parents=True)
    frames: list[ReportFrame] = []
    timeline: list[TimelineEntry] = []
    share = max(1, pictures.most // len(pairs))
    for (result, drive), part in zip(pairs, found.parts, strict=True):
        with BagReader(result) as results, BagReader(drive) as driven:
            timeline += _timeline(results)
            artist = _Artist(results, driven, rig, truth, pictures)
            chosen = np.unique(np.linspace(0, len(part.samples) - 1, min(share, len(part.samples))).astype(int))
            for index in tqdm(chosen, desc=f"drawing {result.name}", unit="frame"):
                sample, picture = part.samples[index], f"frames/{len(frames):05d}.jpg"
                seconds = (sample.truth.stamp_ns - driven.start_ns) / SECOND_NS
                name = f"{drive.name} at {seconds:.2f} s"
                write_picture(folder / picture, artist.draw(sample.truth.stamp_ns, name))
                frames.append(ReportFrame(sample, name, picture, sample.token not in part.missing))
    write_report(folder, _content(found, pairs, frames, timeline))
    return found


class _Artist:
    """Draws the frame of a stamp of the truth: images, boxes and truth at the time of the images."""

    def __init__(
        self, results: BagReader, driven: BagReader, rig: RigConfig, truth: BoxTopics, pictures: Pictures
    ) -> None:
        self._scene = BagScene(driven, rig)
        self._ego = EgoFrame(self._scene.transforms, rig)
        self._found, self._truth = read_boxes(results, OUTPUT), read_boxes(driven, truth)
        self._stamps = np.array(sorted(self._found), np.int64)
        self._pictures = pictures

    def draw(self, truth_ns: int, title: str) -> np.ndarray:
        nearest = nearest_stamp(self._stamps, truth_ns)
        stamp_ns = truth_ns if nearest is None else nearest
        frame, bev_from_base = self._scene.frame(stamp_ns), geometry.invert(self._scene.base_from_bev(stamp_ns))
        true = self._ego.boxes(self._truth[truth_ns], stamp_ns).transformed(bev_from_base)
        boxes = Detections3D.empty(stamp_ns)
        if nearest is not None:
            boxes = self._ego.boxes(self._found[nearest], stamp_ns).transformed(bev_from_base)
        boxes = boxes.select(boxes.scores >= self._pictures.score)
        compared = comparison(boxes, true, _HIT_DISTANCE)
        text = f"{title}   {len(boxes)} boxes of score {self._pictures.score:g} and more: {compared}"
        warning = "" if nearest is not None else "this set was not processed"
        return draw_surround(frame, boxes, text, comparison=compared, warning=warning, view_width=self._pictures.width)


def _timeline(results: BagReader) -> Iterator[TimelineEntry]:
    if OUTPUT_STATUS not in results.topics:
        return
    dropped_before = 0
    for entry in results.messages([OUTPUT_STATUS]):
        status = deserialize(entry)
        dropped = sum(count.count for count in status.sets_dropped)
        seconds = stamp_to_ns(status.header.stamp) / SECOND_NS
        yield TimelineEntry(seconds, status.total_latency_ms, "dropped" if dropped > dropped_before else "")
        dropped_before = dropped


def _content(
    found: Evaluation,
    pairs: Sequence[tuple[Path, Path]],
    frames: Sequence[ReportFrame],
    timeline: Sequence[TimelineEntry],
) -> ReportContent:
    scores, runs = found.scores, list(found.runs.values())
    cards = [("NDS", f"{scores.nds:.3f}"), ("mAP", f"{scores.mean_ap:.3f}")]
    cards += [(name, f"{value:.3f}") for name, value in scores.errors.items()]
    cards += [("samples", f"{len(found.samples)}"), ("without result", f"{found.missing}")]
    cards += [("sets processed", f"{sum(run.processed for run in runs)}")]
    cards += [("sets dropped", f"{sum(sum(run.dropped.values()) for run in runs)}")]
    models = ", ".join(sorted({run.model for run in runs})) or "unknown model"
    stages = [(entry.stage, entry.median, entry.percentile_95) for run in runs[:1] for entry in run.stages]
    return ReportContent(
        title=f"{models} on {', '.join(drive.name for _, drive in pairs)}",
        warning="" if all(run.trained for run in runs) else _UNTRAINED,
        cards=cards,
        scores=scores,
        samples=found.samples,
        frames=frames,
        timeline=timeline,
        stages=stages,
    )
