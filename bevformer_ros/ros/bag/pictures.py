"""What a run found, in numbers and pictures: its sets against the truth of the drive."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from bevformer_ros import geometry
from bevformer_ros.config import RigConfig
from bevformer_ros.drawing import draw_surround
from bevformer_ros.evaluation.matching import HIT_DISTANCE, comparison, within_range
from bevformer_ros.ros.bag.files import BagReader
from bevformer_ros.ros.bag.run_summary import Summary
from bevformer_ros.ros.bag.scene import BagScene
from bevformer_ros.ros.conversions import detections_from_messages
from bevformer_ros.ros.messages import Detection3DArray
from bevformer_ros.ros.topics import OUTPUT, TRUTH
from bevformer_ros.types import Detections3D

UNTRAINED = "UNTRAINED network (random weights): its boxes mean nothing, so these are the ground truth's"
_NEAR = 30.0  # metres
_ANIMATION_WIDTH = 960
_ANIMATION_QUALITY = 55


def sets(played: BagReader, result: BagReader) -> Iterator[tuple[Detections3D, Detections3D]]:
    """Detections and truth of every processed set, both in the base frame."""
    truth = _boxes(played, TRUTH.boxes)
    return ((boxes, truth[stamp]) for stamp, boxes in _boxes(result, OUTPUT.boxes).items())


def _boxes(bag: BagReader, topic: str) -> dict[int, Detections3D]:
    """By stamp."""
    found = (detections_from_messages(message) for _, message in bag.objects({topic: (Detection3DArray,)}))
    return {boxes.stamp_ns: boxes for boxes in found}


def picture(played: BagReader, result: BagReader, rig: RigConfig, summary: Summary) -> np.ndarray:
    """The most varied set that was processed: detections and truth side by side, or the truth alone where untrained."""
    stamp_ns = _most_varied(played, summary.processed_stamps)
    title = f"bevformer_ros demo   model {summary.model}   {summary.processed} of {summary.sets_in} sets"
    return _drawn(BagScene(played, rig), result, stamp_ns, title, summary.trained, view_width=560)


def write_animation(path: Path, played: BagReader, result: BagReader, rig: RigConfig, summary: Summary) -> None:
    """A looping WebP of every processed set, at the drive's own pace."""
    scene, stamps = BagScene(played, rig), sorted(summary.processed_stamps)
    frames = []
    for stamp_ns in stamps:
        image = _drawn(scene, result, stamp_ns, f"model {summary.model}", summary.trained, view_width=400)
        size = (_ANIMATION_WIDTH, round(_ANIMATION_WIDTH * image.shape[0] / image.shape[1]))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        frames.append(Image.fromarray(cv2.cvtColor(small, cv2.COLOR_BGR2RGB)))
    if not frames:
        return
    period_ms = round(float(np.median(np.diff(stamps))) / 1e6) if len(stamps) > 1 else 1000
    frames[0].save(
        path, save_all=True, append_images=frames[1:], duration=period_ms, loop=0, quality=_ANIMATION_QUALITY, method=4
    )


def _drawn(scene: BagScene, result: BagReader, stamp_ns: int, title: str, trained: bool, view_width: int) -> np.ndarray:
    """Only what the benchmark looks at, so that a picture counts as the table does."""
    frame, base_from_bev = scene.frame(stamp_ns), scene.base_from_bev(stamp_ns)
    bev_from_base = geometry.invert(base_from_bev)
    truth = within_range(scene.boxes(TRUTH, stamp_ns).transformed(base_from_bev)).transformed(bev_from_base)
    if not trained:
        return draw_surround(frame, truth, title, warning=UNTRAINED, view_width=view_width)
    found = scene.boxes(OUTPUT, stamp_ns, result)
    boxes = within_range(found.transformed(base_from_bev)).transformed(bev_from_base)
    compared = comparison(boxes, truth, HIT_DISTANCE)
    return draw_surround(frame, boxes, f"{title}   {compared}", comparison=compared, view_width=view_width)


def _most_varied(played: BagReader, stamps: Collection[int]) -> int:
    """Of these stamps (of all, where there are none) the one with the most classes near the car, then boxes."""
    variety: dict[int, tuple[int, int]] = {}
    for stamp, truth in _boxes(played, TRUTH.boxes).items():
        near = truth.labels[np.linalg.norm(truth.centers[:, :2], axis=1) < _NEAR]
        variety[stamp] = (len(np.unique(near)), len(near))
    return max((stamp for stamp in variety if not stamps or stamp in stamps), key=lambda stamp: variety[stamp])
