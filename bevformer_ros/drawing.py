"""Pictures of boxes: on the camera images they were seen in, and from above. OpenCV only; images are BGR."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from bevformer_ros import geometry
from bevformer_ros.lens import project_lines, undistortion_maps
from bevformer_ros.taxonomy import CLASS_NAMES, CLASSES
from bevformer_ros.types import CameraImage, Detections3D, SurroundFrame
from bevformer_ros.unfinished import written_whole

Image = NDArray[np.uint8]

PANEL_ROWS = (("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT"), ("CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT"))
_SUBPIXEL_BITS = 4
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_BACKGROUND = (30, 27, 24)
_GRID = (66, 60, 55)
_TEXT = (226, 222, 218)
_FAINT_TEXT = (150, 144, 138)
_TRUTH = (235, 235, 235)
_WARNING = (60, 170, 255)
_ARROW_SECONDS = 1.0
_DASH = 6.0  # pixels
_GROUND = (170, 200, 120)
_HORIZON = (230, 190, 90)
_GRID_RANGE, _GRID_STEP = 50.0, 10.0  # metres
# Of a car whose size nobody told: front and rear, left and right, metres from its rear axle.
_EGO_X, _EGO_Y = (-1.1, 3.6), (-0.9, 0.9)
_LABELLED_WIDTH = 300  # narrower views have no room for scores
_LABELLED_BOX = 16  # nor have narrower boxes


class Look(Enum):
    """How boxes are drawn: detections in the colour of their class, the truth in white."""

    DETECTED = "solid, the front face crossed"
    FALSE = "dashed: a detection of nothing"
    TRUTH = "thin: an object that was found"
    MISSED = "thick: an object that was not found"

    @property
    def is_truth(self) -> bool:
        return self in (Look.TRUTH, Look.MISSED)


@dataclass(frozen=True)
class Comparison:
    """Detections against the truth about them. truth: in the frame of the detections. found: (truths,) which of it was
    detected. hit: (detections,) which of them are right."""

    truth: Detections3D
    found: NDArray[np.bool_]
    hit: NDArray[np.bool_]

    def __str__(self) -> str:
        missed, false = int((~self.found).sum()), int((~self.hit).sum())
        return f"{int(self.found.sum())} found, {missed} missed (thick white), {false} false (dashed, crossed)"


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


def panel_order(names: Sequence[str]) -> list[str]:
    """As they look out of the car, row by row, where all names are nuScenes'; as they are otherwise."""
    panels = [name for row in PANEL_ROWS for name in row]
    return [name for name in panels if name in names] if set(names) <= set(panels) else list(names)


def rectified(camera: CameraImage) -> Image:
    """The image of camera.rectified_intrinsics, in which straight edges of boxes are straight."""
    if camera.is_rectified:
        return np.asarray(camera.image)
    size = camera.image.shape[1], camera.image.shape[0]
    maps = undistortion_maps(camera.lens, camera.intrinsics, camera.rectified_intrinsics, size)
    return np.asarray(cv2.remap(np.asarray(camera.image), *maps, interpolation=cv2.INTER_LINEAR), np.uint8)


def class_colour(label: int) -> tuple[int, int, int]:
    """BGR."""
    red, green, blue = CLASSES[label].colour
    return blue, green, red


def draw_boxes_on_camera(image: Image, camera: CameraImage, boxes: Detections3D, look: Look = Look.DETECTED) -> None:
    """Draw wire boxes of the BEV frame into `image`, which may be a scaled copy of the camera's image; detections with
    their score."""
    corners = boxes.corners()
    thickness = 1 if look is Look.TRUTH else max(1, round(image.shape[1] / 500))
    edges = geometry.BOX_EDGES if look.is_truth else (*geometry.BOX_EDGES, (4, 6), (5, 7))
    paths = _projected(image, camera, corners[:, np.array(edges)])
    distances = np.linalg.norm(geometry.apply(camera.camera_from_bev, boxes.centers), axis=-1)
    for index in np.argsort(-distances):
        colour = _TRUTH if look.is_truth else class_colour(int(boxes.labels[index]))
        drawn = [piece for path in paths[index] for piece in _seen(path)]
        for piece in drawn:
            for dash in _dashes(piece) if look is Look.FALSE else (piece,):
                _path(image, dash, colour, thickness)
        if drawn and not look.is_truth and image.shape[1] >= _LABELLED_WIDTH:
            _label(image, np.concatenate(drawn), f"{boxes.scores[index]:.2f}".removeprefix("0"))


def _projected(image: Image, camera: CameraImage, lines_bev: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lines (..., 2, 3) of the BEV frame as paths (..., k, 2) of pixels of `image`, a scaled copy of the camera's; NaN
    where the camera sees nothing of them."""
    scale = np.array([image.shape[1] / camera.image.shape[1], image.shape[0] / camera.image.shape[0]])
    lines = geometry.apply(camera.camera_from_bev, lines_bev)
    paths = project_lines(camera.lens, camera.intrinsics, lines.reshape(-1, 2, 3))
    return (paths.reshape(*lines.shape[:-2], *paths.shape[1:]) + 0.5) * scale - 0.5


def _seen(path: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """The pieces (k, 2) of a path between what is NaN in it."""
    finite = np.isfinite(path).all(axis=1)
    if finite.all():
        return [path]
    pieces = np.split(path, np.flatnonzero(np.diff(finite)) + 1)
    return [piece for piece in pieces if len(piece) > 1 and np.isfinite(piece).all()]


def draw_ground_on_camera(image: Image, camera: CameraImage, bev_from_base: NDArray[np.float64]) -> None:
    """Draw into `image`, which may be a scaled copy of the camera's image: the horizon, the lines every 10 m up to 50 m
    about the base frame at its height, which stands for the ground, and the outline of a usual car."""
    marks = np.arange(-_GRID_RANGE, _GRID_RANGE + _GRID_STEP / 2, _GRID_STEP)
    # From mark to mark: what is behind the camera cuts only the pieces that are near it.
    along_x = [[(a, y), (a + _GRID_STEP, y)] for y in marks for a in marks[:-1]]
    along_y = [[(x, a), (x, a + _GRID_STEP)] for x in marks for a in marks[:-1]]
    outline = [(_EGO_X[i], _EGO_Y[j]) for i, j in ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0))]
    car = list(pairwise(outline))
    for flat, colour, thickness in ((along_x + along_y, _GROUND, 1), (car, _WARNING, 2)):
        lines = np.concatenate([np.array(flat), np.zeros((len(flat), 2, 1))], axis=-1)
        for path in _projected(image, camera, geometry.apply(bev_from_base, lines)):
            for piece in _seen(path):
                _path(image, piece, colour, thickness)
    angles = np.linspace(0.0, 2 * np.pi, 181)
    directions = np.stack([np.cos(angles), np.sin(angles), np.zeros_like(angles)], axis=-1) @ bev_from_base[:3, :3].T
    far = geometry.invert(camera.camera_from_bev)[:3, 3] + directions
    for path in _projected(image, camera, np.stack([far[:-1], far[1:]], axis=1)):
        for piece in _seen(path):
            _path(image, piece, _HORIZON, 1)


def _label(image: Image, pixels: NDArray[np.float64], text: str) -> None:
    """Above the highest of the pixels (n, 2) of a box, where that lies within the image and the box is wide enough."""
    top = pixels[np.argmin(pixels[:, 1])]
    wide = np.ptp(pixels[:, 0]) >= _LABELLED_BOX
    if wide and 0 <= top[0] < image.shape[1] - 20 and 0 <= top[1] < image.shape[0]:
        place = (round(float(top[0])) - 8, max(36, round(float(top[1])) - 4))
        cv2.putText(image, text, place, _FONT, 0.36, (0, 0, 0), 2, cv2.LINE_AA)
        cv2.putText(image, text, place, _FONT, 0.36, (255, 255, 255), 1, cv2.LINE_AA)


def _dashes(path: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """Every other piece of a path (k, 2) of pixels."""
    lengths = np.append(0.0, np.linalg.norm(np.diff(path, axis=0), axis=1).cumsum())
    count = 2 * max(1, round(min(lengths[-1], 4000.0) / (2 * _DASH))) + 1
    places = np.linspace(0.0, lengths[-1], count)
    ends = np.stack([np.interp(places, lengths, path[:, axis]) for axis in range(2)], axis=-1)
    return (ends[index : index + 2] for index in range(0, len(ends) - 1, 2))


def _path(image: Image, pixels: NDArray[np.float64], colour: tuple[int, int, int], thickness: int) -> None:
    fixed = np.clip(np.round(pixels * (1 << _SUBPIXEL_BITS)), -(2**24), 2**24).astype(np.int32)
    cv2.polylines(image, [fixed], False, colour, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)


def draw_bev(size: int, boxes: Detections3D, comparison: Comparison | None = None, range_m: float = 51.2) -> Image:
    """(size, size, 3): boxes from above, filled, with heading and velocity over the next second. With a comparison,
    false ones are crossed instead of filled, and the truth is outlined, thick where it was missed."""
    panel = BevPanel(size, range_m)
    image = _bev_background(panel)
    outlines = panel.pixels(boxes.corners()[:, [0, 1, 5, 4]])
    hit = np.ones(len(boxes), np.bool_) if comparison is None else comparison.hit
    fill = image.copy()
    for index in np.flatnonzero(hit):
        colour = class_colour(int(boxes.labels[index]))
        cv2.fillConvexPoly(fill, _fixed(outlines[index]), colour, cv2.LINE_AA, _SUBPIXEL_BITS)
    image = np.asarray(cv2.addWeighted(fill, 0.6, image, 0.4, 0), np.uint8)
    if comparison is not None:
        for outline, found in zip(
            panel.pixels(comparison.truth.corners()[:, [0, 1, 5, 4]]), comparison.found, strict=True
        ):
            _polyline(image, outline, _TRUTH, 1 if found else 2)
    for index, outline in enumerate(outlines):
        colour = class_colour(int(boxes.labels[index]))
        _polyline(image, outline, colour)
        if not hit[index]:
            _path(image, outline[[0, 2]], colour, 1)
            _path(image, outline[[1, 3]], colour, 1)
            continue
        nose = (outline[2] + outline[3]) / 2
        _path(image, np.stack([outline.mean(axis=0), nose]), (245, 245, 245), 1)
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


def _polyline(image: Image, outline: NDArray[np.float64], colour: tuple[int, int, int], thickness: int = 1) -> None:
    cv2.polylines(image, [_fixed(outline)], True, colour, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)


def draw_surround(
    frame: SurroundFrame,
    boxes: Detections3D,
    title: str,
    *,
    comparison: Comparison | None = None,
    bev_from_base: NDArray[np.float64] | None = None,
    warning: str = "",
    view_width: int = 560,
) -> Image:
    """All views of a frame with the boxes in them, the view from above beside them, a title and a legend below.

    Cameras of the nuScenes names are laid out as they look out of the car, any others in rows of three.
    comparison: the truth in white, and what of it was found. bev_from_base: (4, 4), to draw the ground that it implies
    below the boxes. warning: one line that no reader should miss.
    """
    overlay = _Overlay(boxes, comparison, bev_from_base)
    views = np.vstack([np.hstack(row) for row in _view_rows(frame, overlay, view_width)])
    canvas = np.hstack([views, draw_bev(views.shape[0], boxes, comparison)])
    header = _text_bar(canvas.shape[1], title, warning)
    return np.vstack([header, canvas, _legend(canvas.shape[1], boxes)])


@dataclass(frozen=True)
class _Overlay:
    """What is drawn into every view, see draw_surround."""

    boxes: Detections3D
    comparison: Comparison | None
    bev_from_base: NDArray[np.float64] | None


def _view_rows(frame: SurroundFrame, overlay: _Overlay, width: int) -> list[list[Image]]:
    cameras = {camera.name: camera for camera in frame.cameras if camera is not None}
    rows: Sequence[Sequence[str]] = PANEL_ROWS
    if not set(cameras) <= {name for row in PANEL_ROWS for name in row}:
        names = list(cameras)
        rows = [names[start : start + 3] for start in range(0, len(names), 3)]
    shape = next(iter(cameras.values())).image.shape
    height = round(width * shape[0] / shape[1])
    images = [[_view(cameras.get(name), name, overlay, (width, height)) for name in row] for row in rows]
    blank = np.full((height, width, 3), _BACKGROUND, np.uint8)
    longest = max(len(row) for row in images)
    return [row + [blank] * (longest - len(row)) for row in images]


def _view(camera: CameraImage | None, name: str, overlay: _Overlay, size: tuple[int, int]) -> Image:
    image: Image = np.full((size[1], size[0], 3), _BACKGROUND, np.uint8)
    if camera is None:
        cv2.putText(image, "no image", (size[0] // 2 - 40, size[1] // 2), _FONT, 0.6, _FAINT_TEXT, 1, cv2.LINE_AA)
    else:
        image = np.asarray(cv2.resize(np.asarray(camera.image), size, interpolation=cv2.INTER_AREA), np.uint8)
        boxes, comparison = overlay.boxes, overlay.comparison
        if overlay.bev_from_base is not None:
            draw_ground_on_camera(image, camera, overlay.bev_from_base)
        if comparison is None:
            draw_boxes_on_camera(image, camera, boxes)
        else:
            draw_boxes_on_camera(image, camera, comparison.truth.select(comparison.found), Look.TRUTH)
            draw_boxes_on_camera(image, camera, comparison.truth.select(~comparison.found), Look.MISSED)
            draw_boxes_on_camera(image, camera, boxes.select(~comparison.hit), Look.FALSE)
            draw_boxes_on_camera(image, camera, boxes.select(comparison.hit))
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
    """As the end of the name says. Raises ValueError for one that says nothing, OSError where it cannot be written."""
    try:
        encoded, data = cv2.imencode(path.suffix, image)
    except cv2.error:
        encoded = False
    if not encoded:
        raise ValueError(f"{path} cannot be written as a picture, its name must end in .png or .jpg")
    with written_whole(path) as partial:
        partial.write_bytes(data.tobytes())
