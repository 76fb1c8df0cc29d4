"""A drive with its results in rerun's viewer: images, boxes, truth, proposals, the ego's path, latencies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import rerun as rr
import rerun.blueprint as rrb
from numpy.typing import NDArray

from bevformer_ros import geometry
from bevformer_ros.config import RigConfig
from bevformer_ros.drawing import panel_order, rectified
from bevformer_ros.ros.bag.files import BagReader
from bevformer_ros.ros.bag.results import EgoFrame, StampedBoxes, read_boxes
from bevformer_ros.ros.bag.scene import BagScene
from bevformer_ros.ros.conversions import stamp_to_ns
from bevformer_ros.ros.messages import DetectorStatus
from bevformer_ros.ros.topics import OUTPUT, OUTPUT_STATUS, OUTPUT_TRACKS, PROPOSALS, TRUTH, BoxTopics, resolved
from bevformer_ros.taxonomy import CLASS_NAMES, CLASSES
from bevformer_ros.types import CameraImage, Detections3D, SurroundFrame

_TIMELINE = "stamp"
_IMAGE_WIDTH = 640
_ARROW_SECONDS = 1.0
_WHITE = (235, 235, 235)
_LAYERS = {
    "truth": TRUTH,
    "detections": OUTPUT,
    "tracks": OUTPUT_TRACKS,
    "proposals": BoxTopics(resolved(PROPOSALS), ""),
}


def view(
    drive: Path,
    result: Path | None,
    rig: RigConfig,
    file: Path | None,
    bev_norms: Callable[[SurroundFrame], NDArray] | None = None,
) -> int:
    """Show every set of a drive, and what a result bag says about it; into a file instead of a window where one is
    given. bev_norms: as Detector's, to be shown too. Returns how many sets there are. Raises ValueError for bags
    without boxes."""
    recording = rr.RecordingStream("bevformer_ros", recording_id=f"{drive.name}-{result.name if result else 'truth'}")
    if file is None:
        recording.spawn()
    else:
        recording.save(file)
    with BagReader(drive) as driven, BagReader(result or drive) as results:
        layers = {name: read_boxes(bag, names) for name, names, bag in _present(driven, results)}
        stamps = sorted({stamp for boxes in layers.values() for stamp in boxes})
        if not stamps:
            raise ValueError(f"{drive} has no boxes, and no result was named; replay it first")
        scene = BagScene(driven, rig)
        ego = EgoFrame(scene.transforms, rig)
        recording.send_blueprint(_layout(panel_order([camera.name for camera in rig.cameras]), bev_norms is not None))
        path: list[NDArray[np.float64]] = []
        for stamp_ns in stamps:
            recording.set_time(_TIMELINE, timestamp=np.datetime64(stamp_ns, "ns"))
            pose = ego.pose(stamp_ns)
            path.append(pose[:3, 3])
            recording.log("world/path", rr.LineStrips3D([path], colors=[_WHITE]))
            recording.log("world/ego", _transform(pose))
            frame = scene.frame(stamp_ns)
            _log_cameras(recording, frame, geometry.invert(scene.base_from_bev(stamp_ns)))
            if bev_norms is not None:
                recording.log("bev_features", rr.DepthImage(bev_norms(frame)[::-1], colormap="viridis"))
            for name, boxes in layers.items():
                _log_boxes(recording, f"world/ego/{name}", boxes.get(stamp_ns), ego, name != "truth")
        _log_latencies(recording, results)
    recording.flush()
    return len(stamps)


def _present(driven: BagReader, results: BagReader) -> Iterator[tuple[str, BoxTopics, BagReader]]:
    for name, names in _LAYERS.items():
        bag = driven if name == "truth" else results
        if names.boxes in bag.topics:
            yield name, names, bag


def _layout(cameras: list[str], with_features: bool) -> rrb.Blueprint:
    """The world beside the cameras, in which the viewer draws the boxes by itself; latencies below, BEV features beside
    them."""
    layers = [f"/world/ego/{name}/boxes" for name in _LAYERS if name != "proposals"]
    views = [
        rrb.Spatial2DView(origin=f"/world/ego/{name}", contents=["$origin/**", *layers], name=name) for name in cameras
    ]
    world = rrb.Spatial3DView(origin="/world", name="world")
    pictures = rrb.Horizontal(world, rrb.Grid(*views, grid_columns=3), column_shares=[1, 2])
    latencies = rrb.TimeSeriesView(origin="/latency", name="latency, ms")
    if not with_features:
        return rrb.Blueprint(rrb.Vertical(pictures, latencies, row_shares=[4, 1]), collapse_panels=True)
    features = rrb.Spatial2DView(origin="/bev_features", name="BEV features, from above")
    below = rrb.Horizontal(features, latencies, column_shares=[1, 2])
    return rrb.Blueprint(rrb.Vertical(pictures, below, row_shares=[2, 1]), collapse_panels=True)


def _log_cameras(recording: rr.RecordingStream, frame: SurroundFrame, bev_from_base: NDArray[np.float64]) -> None:
    for camera in frame.cameras:
        if camera is None:
            continue
        place, (image, intrinsics) = f"world/ego/{camera.name}", _reduced(camera)
        recording.log(place, _transform(geometry.invert(camera.camera_from_bev @ bev_from_base)))
        recording.log(
            place,
            rr.Pinhole(
                image_from_camera=intrinsics,
                resolution=(image.shape[1], image.shape[0]),
                camera_xyz=rr.ViewCoordinates.RDF,
                image_plane_distance=2.0,
            ),
        )
        _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])
        recording.log(f"{place}/image", rr.EncodedImage(contents=jpeg.tobytes(), media_type="image/jpeg"))


def _reduced(camera: CameraImage) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The rectified image at the viewer's width, and intrinsics in its pixels, whose centres lie at halves there."""
    scale = _IMAGE_WIDTH / camera.image.shape[1]
    size = (_IMAGE_WIDTH, round(camera.image.shape[0] * scale))
    intrinsics = camera.rectified_intrinsics
    intrinsics[:2, 2] += 0.5
    image = cv2.resize(rectified(camera), size, interpolation=cv2.INTER_AREA)
    return np.asarray(image, np.uint8), np.diag([scale, scale, 1.0]) @ intrinsics


def _log_boxes(
    recording: rr.RecordingStream, place: str, stamped: StampedBoxes | None, ego: EgoFrame, coloured: bool
) -> None:
    boxes = Detections3D.empty(0) if stamped is None else ego.boxes(stamped, stamped.boxes.stamp_ns)
    colours = [CLASSES[label].colour if coloured else _WHITE for label in boxes.labels]
    labels = [f"{CLASS_NAMES[label]} {score:.2f}" for label, score in zip(boxes.labels, boxes.scores, strict=True)]
    halves = boxes.yaws / 2
    turns = np.column_stack([np.zeros((len(boxes), 2)), np.sin(halves), np.cos(halves)])
    recording.log(
        f"{place}/boxes",
        rr.Boxes3D(
            centers=boxes.centers,
            half_sizes=boxes.sizes / 2,
            quaternions=turns,
            colors=colours,
            labels=labels if coloured else None,
            show_labels=False,
            fill_mode=rr.components.FillMode.MajorWireframe,
        ),
    )
    ways = np.column_stack([_ARROW_SECONDS * boxes.velocities, np.zeros(len(boxes))])
    recording.log(f"{place}/velocities", rr.Arrows3D(origins=boxes.centers, vectors=ways, colors=colours))


def _log_latencies(recording: rr.RecordingStream, results: BagReader) -> None:
    if OUTPUT_STATUS not in results.topics:
        return
    for _, status in results.objects({OUTPUT_STATUS: (DetectorStatus,)}):
        if not status.latencies:
            continue
        recording.set_time(_TIMELINE, timestamp=np.datetime64(stamp_to_ns(status.header.stamp), "ns"))
        for latency in status.latencies:
            recording.log(f"latency/{latency.stage}", rr.Scalars(latency.milliseconds))
        recording.log("latency/total", rr.Scalars(status.total_latency_ms))


def _transform(parent_from_child: NDArray[np.float64]) -> rr.Transform3D:
    return rr.Transform3D(translation=parent_from_child[:3, 3], mat3x3=parent_from_child[:3, :3])
