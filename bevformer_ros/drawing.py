"""Pictures of boxes: on the camera images they were seen in, and from above. OpenCV only; images are BGR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from bevformer_ros import geometry
from bevformer_ros.taxonomy import CLASS_NAMES, CLASSES
from bevformer_ros.types import CameraImage, Detections3D, SurroundFrame

Image = NDArray[np.uint8]

PANEL_ROWS = (("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT"), ("CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT"))
_NEAR = 0.1
_SUBPIXEL_BITS = 4
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_BACKGROUND = (30, 27, 24)
_GRID = (66, 60, 55)
_TEXT = (226, 222, 218)
_FAINT_TEXT = (150, 144, 138)
_TRUTH = (235, 235, 235)
_WARNING = (60, 170, 255)
_ARROW_SECONDS = 1.0


@dataclass(frozen=True)
class BevPanel:
    """The view from above: `range_m` metres to each side of the BEV frame's origin on `size` pixels, y up."""

    size: int
    range_m: float = 51.2

    def pixels(self, points_bev: NDArray[np.float64]) -> NDArray[np.float64]:
        """(..., 2 or more) metres in the BEV frame to (..., 2) pixels."""
        scale = self.size / (2 * self.range_m)
        x = (points_bev[..., 0] + self.range_m) * scale
        y = (self.range_m - points_bev[..., 1]) * scale
        return np.stack([x, y], axis=-1)


def class_colour(label: int) -> tuple[int, int, int]:
    """BGR."""
    red, green, blue = CLASSES[label].colour
    return blue, green, red


def draw_boxes_on_camera(image: Image, camera: CameraImage, boxes: Detections3D, is_truth: bool = False) -> None:
    """Draw wire boxes of the BEV frame into `image`, which may be a scaled copy of the camera's image.

    The front face is crossed, so that the heading shows. is_truth: thin, white and without the cross, to lie behind
    detections.
    """
    scale = np.array([image.shape[1] / camera.image.shape[1], image.shape[0] / camera.image.shape[0]])
    corners_camera = geometry.apply(camera.camera_from_bev, boxes.corners())
    in_front = np.flatnonzero((corners_camera[..., 2] > _NEAR).any(axis=1))
    thickness = 1 if is_truth else max(1, round(image.shape[1] / 500))
    edges = geometry.BOX_EDGES if is_truth else (*geometry.BOX_EDGES, (4, 6), (5, 7))
    for index in in_front[np.argsort(-corners_camera[in_front, :, 2].mean(axis=1))]:
        colour = _TRUTH if is_truth else class_colour(int(boxes.labels[index]))
        corners = corners_camera[index]
        for start, end in edges:
            line = _clipped_line(corners[start], corners[end], camera.intrinsics)
            if line is not None:
                _line(image, (line + 0.5) * scale - 0.5, colour, thickness)


def _clipped_line(
    start: NDArray[np.float64], end: NDArray[np.float64], intrinsics: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """The pixels (2, 2) of a segment of the camera frame, cut at the near plane; None where all of it is behind."""
    if start[2] > end[2]:
        start, end = end, start
    if end[2] <= _NEAR:
        return None
    if start[2] < _NEAR:
        start = start + (_NEAR - start[2]) / (end[2] - start[2]) * (end - start)
    pixels, _ = geometry.project(intrinsics, np.stack([start, end]))
    return pixels


def _line(image: Image, pixels: NDArray[np.float64], colour: tuple[int, int, int], thickness: int) -> None:
    fixed = np.clip(np.round(pixels * (1 << _SUBPIXEL_BITS)), -(2**24), 2**24).astype(int)
    start, end = map(tuple, fixed.tolist())
    cv2.line(image, start, end, colour, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)


def draw_bev(size: int, boxes: Detections3D, truth: Detections3D | None = None, range_m: float = 51.2) -> Image:
    """(size, size, 3): boxes from above, filled, with heading and velocity over the next second; truth as outlines."""
    panel = BevPanel(size, range_m)
    image = _bev_background(panel)
    if truth is not None:
        for outline in panel.pixels(truth.corners()[:, [0, 1, 5, 4]]):
            _polyline(image, outline, _TRUTH)
    fill = image.copy()
    outlines = panel.pixels(boxes.corners()[:, [0, 1, 5, 4]])
    for index, outline in enumerate(outlines):
        cv2.fillConvexPoly(fill, _fixed(outline), class_colour(int(boxes.labels[index])), cv2.LINE_AA, _SUBPIXEL_BITS)
    image = np.asarray(cv2.addWeighted(fill, 0.55, image, 0.45, 0), np.uint8)
    for index, outline in enumerate(outlines):
        colour = class_colour(int(boxes.labels[index]))
        _polyline(image, outline, colour)
        nose = (outline[2] + outline[3]) / 2
        _line(image, np.stack([outline.mean(axis=0), nose]), (245, 245, 245), 1)
        travel = panel.pixels(boxes.centers[index, :2] + _ARROW_SECONDS * boxes.velocities[index])
        center = outline.mean(axis=0)
        if np.linalg.norm(travel - center) > 3:
            cv2.arrowedLine(image, _integer(center), _integer(travel), (245, 245, 245), 1, cv2.LINE_AA, tipLength=0.25)
    return image


def _bev_background(panel: BevPanel) -> Image:
    image = np.full((panel.size, panel.size, 3), _BACKGROUND, np.uint8)
    middle = _integer(panel.pixels(np.zeros(2)))
    for radius in range(10, int(panel.range_m * 1.5), 10):
        edge = panel.pixels(np.array([0.0, float(radius)]))
        cv2.circle(image, middle, middle[1] - round(edge[1]), _GRID, 1, cv2.LINE_AA)
        if radius % 20 == 0 and radius < panel.range_m:
            cv2.putText(
                image, f"{radius} m", (middle[0] + 4, round(edge[1]) + 12), _FONT, 0.36, _FAINT_TEXT, 1, cv2.LINE_AA
            )
    car = np.array([[-0.9, -2.0], [0.9, -2.0], [0.9, 1.4], [0.0, 2.6], [-0.9, 1.4]])
    cv2.fillConvexPoly(image, _fixed(panel.pixels(car)), (235, 235, 235), cv2.LINE_AA, _SUBPIXEL_BITS)
    return image


def _fixed(pixels: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.round(pixels * (1 << _SUBPIXEL_BITS)).astype(np.int32)


def _integer(pixel: NDArray[np.float64]) -> tuple[int, int]:
    return round(float(pixel[0])), round(float(pixel[1]))


def _polyline(image: Image, outline: NDArray[np.float64], colour: tuple[int, int, int]) -> None:
    cv2.polylines(image, [_fixed(outline)], True, colour, 1, cv2.LINE_AA, _SUBPIXEL_BITS)


def draw_surround(
    frame: SurroundFrame,
    boxes: Detections3D,
    title: str,
    *,
    truth: Detections3D | None = None,
    warning: str = "",
    view_width: int = 560,
) -> Image:
    """All views of a frame with the boxes in them, the view from above beside them, a title and a legend below.

    Cameras of the nuScenes names are laid out as they look out of the car, any others in rows of three.
    truth: white outlines to compare with. warning: one line that no reader should miss.
    """
    views = np.vstack([np.hstack(row) for row in _view_rows(frame, boxes, truth, view_width)])
    canvas = np.hstack([views, draw_bev(views.shape[0], boxes, truth)])
    header = _text_bar(canvas.shape[1], title, warning)
    return np.vstack([header, canvas, _legend(canvas.shape[1], boxes)])


def _view_rows(frame: SurroundFrame, boxes: Detections3D, truth: Detections3D | None, width: int) -> list[list[Image]]:
    cameras = {camera.name: camera for camera in frame.cameras if camera is not None}
    rows: Sequence[Sequence[str]] = PANEL_ROWS
    if not set(cameras) <= {name for row in PANEL_ROWS for name in row}:
        names = list(cameras)
        rows = [names[start : start + 3] for start in range(0, len(names), 3)]
    shape = next(iter(cameras.values())).image.shape
    height = round(width * shape[0] / shape[1])
    images = [[_view(cameras.get(name), name, boxes, truth, (width, height)) for name in row] for row in rows]
    blank = np.full((height, width, 3), _BACKGROUND, np.uint8)
    longest = max(len(row) for row in images)
    return [row + [blank] * (longest - len(row)) for row in images]


def _view(
    camera: CameraImage | None, name: str, boxes: Detections3D, truth: Detections3D | None, size: tuple[int, int]
) -> Image:
    image: Image = np.full((size[1], size[0], 3), _BACKGROUND, np.uint8)
    if camera is None:
        cv2.putText(image, "no image", (size[0] // 2 - 40, size[1] // 2), _FONT, 0.6, _FAINT_TEXT, 1, cv2.LINE_AA)
    else:
        image = np.asarray(cv2.resize(camera.image, size, interpolation=cv2.INTER_AREA), np.uint8)
        if truth is not None:
            draw_boxes_on_camera(image, camera, truth, is_truth=True)
        draw_boxes_on_camera(image, camera, boxes)
    cv2.putText(image, name, (9, 20), _FONT, 0.46, (20, 20, 20), 3, cv2.LINE_AA)
    cv2.putText(image, name, (9, 20), _FONT, 0.46, (250, 250, 250), 1, cv2.LINE_AA)
    cv2.rectangle(image, (0, 0), (size[0] - 1, size[1] - 1), _BACKGROUND, 1)
    return image


def _text_bar(width: int, title: str, warning: str) -> Image:
    bar = np.full((64 if warning else 38, width, 3), _BACKGROUND, np.uint8)
    cv2.putText(bar, title, (12, 26), _FONT, 0.62, _TEXT, 1, cv2.LINE_AA)
    cv2.putText(bar, warning, (12, 53), _FONT, 0.62, _WARNING, 1, cv2.LINE_AA)
    return bar


def _legend(width: int, boxes: Detections3D) -> Image:
    """Every class with its colour and how often it occurs."""
    bar = np.full((34, width, 3), _BACKGROUND, np.uint8)
    counts = np.bincount(boxes.labels, minlength=len(CLASS_NAMES))
    step = width // len(CLASS_NAMES)
    for label, name in enumerate(CLASS_NAMES):
        x = 12 + label * step
        cv2.rectangle(bar, (x, 11), (x + 12, 23), class_colour(label), cv2.FILLED)
        colour = _TEXT if counts[label] else _FAINT_TEXT
        cv2.putText(bar, f"{name} {counts[label]}", (x + 18, 22), _FONT, 0.4, colour, 1, cv2.LINE_AA)
    return bar


def write_picture(path: Path, image: Image) -> None:
    """Raises OSError where the picture cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), image):
        raise OSError(f"{path} cannot be written as a picture; does its name end in .png or .jpg?")
