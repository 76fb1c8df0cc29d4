"""What lies behind everything else in a picture: the sky, the ground with road and markings, shadows, haze."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from bevformer_ros.simulation.road import KERB, LANE_WIDTH, SIDEWALK_END, Road
from bevformer_ros.simulation.view import SUBPIXEL_BITS, View

Array = NDArray[np.float64]

HAZE = np.array([214.0, 222.0, 226.0])  # RGB
_HAZE_LENGTH = 170.0  # metres over which contrast falls to 1/e
_ZENITH = np.array([112.0, 166.0, 222.0])
_GRASS = (132, 152, 98)
_PAVEMENT = (184, 178, 168)
_KERBSTONE = (198, 196, 190)
_ASPHALT = (110, 112, 116)
_PARKING = (124, 124, 124)
_WHITE = (224, 224, 220)
_YELLOW = (216, 178, 62)

_REACH = 140.0  # metres of road drawn ahead of the camera and behind it
_MARKING_REACH = 75.0
_STRIP_STEP = 3.0
_LANE_EDGE = 2 * LANE_WIDTH + 0.1
_CROSSING_SPACING = 96.0

_TILE_PIXELS = 512
_TILE_METRES = 16.0


def haze_share(depths: Array) -> Array:
    """How much of the haze's colour covers what lies at these depths."""
    return 1.0 - np.exp(-np.maximum(depths, 0.0) / _HAZE_LENGTH)


def paint_background(image: NDArray[np.uint8], view: View, road: Road, shadows: list[Array]) -> None:
    """Fill the BGR image with sky and ground; shadows: polygons (n, 3) on the ground in the world."""
    station = _nearest_station(road, view.position[:2])
    x, y = view.position[:2]
    _paint_sky(image, view)
    far = 3000.0
    square = np.array(
        [(x - far, y - far, 0.0), (x + far, y - far, 0.0), (x + far, y + far, 0.0), (x - far, y + far, 0.0)]
    )
    _fill(image, view, square, _GRASS)
    _paint_road(image, view, road, station)
    _paint_markings(image, view, road, station)
    _shade(image, view, shadows)


def _nearest_station(road: Road, position: Array) -> float:
    stations = np.arange(road.start, road.end, 5.0)
    return float(stations[np.square(road.points(stations, 0.0) - position).sum(-1).argmin()])


def _fill(image: NDArray[np.uint8], view: View, polygon_world: Array, rgb: tuple[int, int, int]) -> None:
    pixels = view.polygon(polygon_world)
    if pixels is not None:
        cv2.fillPoly(image, [pixels], rgb[::-1], cv2.LINE_AA, SUBPIXEL_BITS)


def _paint_sky(image: NDArray[np.uint8], view: View) -> None:
    elevation = np.clip(_ray_heights(view), 0.0, 1.0)[:, None]
    share = np.exp(-5.0 * elevation)
    image[:] = (share * HAZE + (1 - share) * _ZENITH)[:, None, ::-1].astype(np.uint8)


def _ray_heights(view: View) -> Array:
    """(H,) rise per metre of depth of the rays through the image's middle column, one for each row."""
    intrinsics = view.camera.intrinsics
    rows = np.arange(view.camera.height)
    rays = np.stack([np.zeros(len(rows)), (rows - intrinsics[1, 2]) / intrinsics[1, 1], np.ones(len(rows))], axis=-1)
    return rays @ view.camera_from_world[:3, 2]


def _strip(road: Road, first: float, last: float, left: float, right: float) -> Array:
    """The polygon (n, 3) on the ground between two offsets over a range of stations."""
    stations = np.linspace(first, last, max(2, round((last - first) / _STRIP_STEP) + 1))
    outline = np.concatenate([road.points(stations, left), road.points(stations[::-1], right)])
    return np.column_stack([outline, np.zeros(len(outline))])


def _paint_road(image: NDArray[np.uint8], view: View, road: Road, station: float) -> None:
    first, last = max(road.start, station - _REACH), min(road.end, station + _REACH)
    for left, right, rgb in (
        (SIDEWALK_END, -SIDEWALK_END, _PAVEMENT),
        (KERB + 0.25, -KERB - 0.25, _KERBSTONE),
        (KERB, -KERB, _PARKING),
        (_LANE_EDGE, -_LANE_EDGE, _ASPHALT),
        (0.22, 0.10, _YELLOW),
        (-0.10, -0.22, _YELLOW),
        (_LANE_EDGE + 0.06, _LANE_EDGE - 0.06, _WHITE),
        (-_LANE_EDGE + 0.06, -_LANE_EDGE - 0.06, _WHITE),
    ):
        _fill(image, view, _strip(road, first, last, left, right), rgb)


def _paint_markings(image: NDArray[np.uint8], view: View, road: Road, station: float) -> None:
    """Dashes between lanes, bays in the parking lane, zebra crossings."""
    reach = (station - _MARKING_REACH, station + _MARKING_REACH)
    for side in (-1, 1):
        for start in _multiples(9.0, *reach):
            offset = side * LANE_WIDTH
            _fill(image, view, _strip(road, start, start + 3.0, offset + 0.07, offset - 0.07), _WHITE)
        for start in _multiples(6.5, *reach):
            edges = (side * _LANE_EDGE, side * KERB)
            _fill(image, view, _strip(road, start, start + 0.1, max(edges), min(edges)), _WHITE)
    for start in _multiples(_CROSSING_SPACING, *reach):
        for middle in np.arange(-6.5, 7.0, 1.0).tolist():
            _fill(image, view, _strip(road, start, start + 3.2, middle + 0.26, middle - 0.26), _WHITE)


def _multiples(spacing: float, first: float, last: float) -> list[float]:
    return (spacing * np.arange(np.ceil(first / spacing), np.floor(last / spacing) + 1)).tolist()


def _shade(image: NDArray[np.uint8], view: View, shadows: list[Array]) -> None:
    """Multiply the ground by its grain and by the shadows, then lay the haze over it, farther rows first."""
    drop = -_ray_heights(view)
    below = np.flatnonzero(drop > 0)
    if len(below) == 0:
        return
    top = int(below[0])
    depths = view.position[2] / drop[top:]
    gain = _grain(view)
    contrast = np.clip(1.4 * np.exp(-depths / 14.0), 0.0, 1.0)[:, None]
    gain[top:] = 1.0 + contrast * (gain[top:] - 1.0)
    gain[:top] = 1.0
    _darken(gain, view, shadows)
    share = haze_share(depths)[:, None, None]
    ground = image[top:].astype(np.float32)
    ground *= (gain[top:, :, None] * (1 - share)).astype(np.float32)
    ground += (share * HAZE[::-1]).astype(np.float32)
    image[top:] = np.clip(ground, 0, 255).astype(np.uint8)


def _darken(gain: NDArray[np.float32], view: View, shadows: list[Array]) -> None:
    mask = np.zeros(gain.shape, np.uint8)
    for shadow in shadows:
        pixels = view.polygon(shadow)
        if pixels is not None:
            cv2.fillConvexPoly(mask, pixels, 255, cv2.LINE_AA, SUBPIXEL_BITS)
    gain *= 1.0 - mask * np.float32(0.42 / 255)


def _grain(view: View) -> NDArray[np.float32]:
    """The ground's texture about 1.0, as the camera sees it."""
    camera = view.camera
    origin = np.floor(view.position[:2] / _TILE_METRES) * _TILE_METRES
    camera_from_ground = view.camera_from_world.copy()
    camera_from_ground[:3, 3] += camera_from_ground[:3, :2] @ origin
    metres_per_pixel = _TILE_METRES / _TILE_PIXELS
    image_from_tile = camera.intrinsics @ camera_from_ground[:3, [0, 1, 3]] @ np.diag([metres_per_pixel] * 2 + [1.0])
    size = (camera.width, camera.height)
    grain = cv2.warpPerspective(_grain_tile(), image_from_tile, size, borderMode=cv2.BORDER_WRAP)
    return np.asarray(grain, np.float32)


@lru_cache(maxsize=1)
def _grain_tile() -> NDArray[np.float32]:
    """Periodic noise of several sizes with mean 1."""
    random = np.random.default_rng(0)
    tile = np.zeros((_TILE_PIXELS, _TILE_PIXELS), np.float32)
    frequencies = np.hypot(np.fft.fftfreq(_TILE_PIXELS)[:, None], np.fft.fftfreq(_TILE_PIXELS)[None])
    for size, strength in ((1.2, 0.045), (5.0, 0.035), (30.0, 0.04)):
        white = np.fft.fft2(random.normal(size=tile.shape))
        smooth = np.fft.ifft2(white * np.exp(-((np.pi * size * frequencies) ** 2))).real
        tile += (strength * smooth / smooth.std()).astype(np.float32)
    return 1.0 + tile
