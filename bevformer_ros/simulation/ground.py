"""What lies behind everything else in a picture: the sky, the ground with road and markings, shadows, haze."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from bevformer_ros import geometry
from bevformer_ros.simulation.road import Road
from bevformer_ros.simulation.streets import CROSSING_FAR, CROSSING_NEAR, LANE_WIDTH, STOP_LINE, Street
from bevformer_ros.simulation.view import SUBPIXEL_BITS, View

Array = NDArray[np.float64]
RGB = tuple[int, int, int]

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

_BAND_REACH = 140.0  # metres around the camera
_MARK_REACH = 75.0
_BAND_STEP = 3.0
_BEYOND = 140.0  # metres of street painted where nobody is any more
_LIGHT_BY_SHADE = (1.0 - np.arange(256) * (0.42 / 255)).astype(np.float32)

_TILE_PIXELS = 512
_TILE_METRES = 16.0


def haze_share(depths: Array) -> Array:
    """How much of the haze's colour covers what lies at these depths."""
    return 1.0 - np.exp(-np.maximum(depths, 0.0) / _HAZE_LENGTH)


@dataclass(frozen=True)
class Band:
    """A stripe along a road: its edges (k, 2) side by side, and its RGB colour."""

    left: Array
    right: Array
    rgb: RGB


@dataclass(frozen=True)
class Ground:
    """What is painted on the flat earth: bands, one over the other, and over them white marks, quads (m, 4, 2)."""

    bands: tuple[Band, ...]
    marks: Array

    @classmethod
    def of(cls, streets: Sequence[Street]) -> Ground:
        """The streets, layer by layer, so that they open into one another where they meet."""
        surfaces = [_surfaces(street) for street in streets]
        bands = [band for layer in zip(*surfaces, strict=True) for band in layer]
        bands += [line for street in streets for line in _lines(street)]
        marks = [_quads(street.road, np.array(_marks(street)).reshape(-1, 4)) for street in streets]
        return cls(tuple(bands), np.concatenate(marks))


def _surfaces(street: Street) -> list[Band]:
    """The layers of a street, the lowest first, all along it, and the plain asphalt of its junctions last."""
    section, ends = street.section, (street.first - _BEYOND, street.last + _BEYOND)
    layers: list[tuple[float, RGB]] = [
        (section.pavement_end, _PAVEMENT),
        (section.kerb + 0.25, _KERBSTONE),
        (section.kerb, _PARKING),
        (section.lane_edge, _ASPHALT),
    ]
    return [_band(street.road, *ends, edge, -edge, rgb) for edge, rgb in layers]


def _lines(street: Street) -> list[Band]:
    """Asphalt over the junctions, then the lines along the street between them."""
    section, crossed = street.section, street.crossing.kerb
    bands = [
        _band(street.road, middle - crossed, middle + crossed, section.kerb, -section.kerb, _ASPHALT)
        for middle in street.junctions
    ]
    for first, last in _stretches(street):
        for middle, rgb in (
            (0.16, _YELLOW),
            (-0.16, _YELLOW),
            (section.lane_edge, _WHITE),
            (-section.lane_edge, _WHITE),
        ):
            bands.append(_band(street.road, first, last, middle + 0.06, middle - 0.06, rgb))
    return bands


def _stretches(street: Street) -> list[tuple[float, float]]:
    """The stations between the stop lines of one junction and the next."""
    reach = street.crossing.kerb + STOP_LINE
    edges = [edge for middle in sorted(street.junctions) for edge in (middle - reach, middle + reach)]
    edges = [street.first - _BEYOND, *edges, street.last + _BEYOND]
    return [(first, last) for first, last in zip(edges[::2], edges[1::2], strict=True) if last > first]


def _band(road: Road, first: float, last: float, left: float, right: float, rgb: RGB) -> Band:
    stations = np.linspace(first, last, max(2, round((last - first) / _BAND_STEP) + 1))
    return Band(road.points(stations, left), road.points(stations, right), rgb)


def _quads(road: Road, strips: Array) -> Array:
    start, end, left, right = strips.T
    corners = [road.points(start, left), road.points(end, left), road.points(end, right), road.points(start, right)]
    return np.stack(corners, axis=1)


Strips = list[tuple[float, float, float, float]]  # first and last station, left and right offset


def _marks(street: Street) -> Strips:
    """Dashes between lanes, lines across the parking lanes, and the crossings and stop lines at junctions."""
    section, strips = street.section, []
    dividers = [offset + LANE_WIDTH / 2 for offset in section.lanes[:-1] if abs(offset + LANE_WIDTH / 2) > 0.1]
    for first, last in _stretches(street):
        for start in _multiples(9.0, first, last - 3.0):
            strips += [(start, start + 3.0, divider + 0.07, divider - 0.07) for divider in dividers]
        for start in _multiples(6.5, first + 6.0, last - 6.0):
            for left, right in ((section.kerb, section.lane_edge), (-section.lane_edge, -section.kerb)):
                strips.append((start, start + 0.1, left, right))
    for junction in street.junctions:
        strips += _crossing(street, junction, 1.0) + _crossing(street, junction, -1.0)
    return strips


def _crossing(street: Street, junction: float, side: float) -> Strips:
    """The zebra crossing on one side of a junction, and the stop line of those who come towards it there."""
    section, kerb = street.section, street.crossing.kerb
    near, far, line = (junction + side * (kerb + reach) for reach in (CROSSING_NEAR, CROSSING_FAR, STOP_LINE))
    bars = np.arange(0.7 - section.kerb, section.kerb - 0.5, 1.0).tolist()
    incoming = (section.lane_edge, 0.0) if side > 0 else (0.0, -section.lane_edge)
    return [*((near, far, middle + 0.26, middle - 0.26) for middle in bars), (line - 0.2, line + 0.2, *incoming)]


def _multiples(spacing: float, first: float, last: float) -> list[float]:
    return (spacing * np.arange(np.ceil(first / spacing), np.floor(last / spacing) + 1)).tolist()


def paint_background(image: NDArray[np.uint8], view: View, ground: Ground, shadows: list[Array]) -> None:
    """Fill the BGR image with sky and ground; shadows: polygons (n, 3) on the ground in the world."""
    horizon = _paint_sky(image, view)
    image[horizon:] = _GRASS[::-1]
    for band in ground.bands:
        _paint_band(image, view, band)
    near = np.linalg.norm(ground.marks[:, 0] - view.position[:2], axis=1) < _MARK_REACH
    marks = np.concatenate([ground.marks[near], np.zeros((near.sum(), 4, 1))], axis=-1)
    for outline in view.polygons(geometry.apply(view.camera_from_world, marks)):
        if outline is not None:
            cv2.fillConvexPoly(image, outline, _WHITE[::-1], cv2.LINE_AA, SUBPIXEL_BITS)
    _shade(image, view, horizon, shadows)


def _paint_band(image: NDArray[np.uint8], view: View, band: Band) -> None:
    near = np.flatnonzero(np.square(band.left - view.position[:2]).sum(-1) < _BAND_REACH**2)
    if len(near) < 2:
        return
    reach = slice(near[0], near[-1] + 1)
    outline = np.concatenate([band.left[reach], band.right[reach][::-1]])
    pixels = view.polygon(np.column_stack([outline, np.zeros(len(outline))]))
    if pixels is not None:
        cv2.fillPoly(image, [pixels], band.rgb[::-1], cv2.LINE_AA, SUBPIXEL_BITS)


def _paint_sky(image: NDArray[np.uint8], view: View) -> int:
    """Returns the first row that shows ground."""
    heights = _ray_heights(view)
    horizon = int((heights >= 0).sum())
    share = np.exp(-5.0 * np.clip(heights[:horizon], 0.0, 1.0))[:, None]
    image[:horizon] = np.ascontiguousarray((share * HAZE + (1 - share) * _ZENITH)[:, None, ::-1].astype(np.uint8))
    return horizon


def _ray_heights(view: View) -> Array:
    """(H,) rise per metre of depth of the rays through the image's middle column, one for each row."""
    intrinsics = view.camera.intrinsics
    rows = np.arange(view.camera.height)
    rays = np.stack([np.zeros(len(rows)), (rows - intrinsics[1, 2]) / intrinsics[1, 1], np.ones(len(rows))], axis=-1)
    return rays @ view.camera_from_world[:3, 2]


def _shade(image: NDArray[np.uint8], view: View, horizon: int, shadows: list[Array]) -> None:
    """Multiply the ground by its grain and by the shadows, then lay the haze over it."""
    if horizon == view.camera.height:
        return
    depths = (-view.position[2] / _ray_heights(view)[horizon:])[:, None]
    contrast = np.clip(1.4 * np.exp(-depths / 14.0), 0.0, 1.0)
    clear = 1 - haze_share(depths)
    gain = _grain(view, horizon)
    gain -= 1.0
    gain *= contrast.astype(np.float32)
    gain += 1.0
    gain *= _light(view, shadows)[horizon:]
    gain *= clear.astype(np.float32)
    haze = np.broadcast_to((1 - clear) * HAZE[::-1], (len(clear), 3)).astype(np.float32)
    for channel in range(3):
        lit = image[horizon:, :, channel] * gain
        lit += haze[:, channel, None]
        image[horizon:, :, channel] = np.clip(lit, 0, 255, out=lit)


def _light(view: View, shadows: list[Array]) -> NDArray[np.float32]:
    """(H, W) share of the light that the shadows leave."""
    mask = np.zeros((view.camera.height, view.camera.width), np.uint8)
    for shadow in shadows:
        pixels = view.polygon(shadow)
        if pixels is not None:
            cv2.fillConvexPoly(mask, pixels, 255, cv2.LINE_AA, SUBPIXEL_BITS)
    return _LIGHT_BY_SHADE[mask]


def _grain(view: View, horizon: int) -> NDArray[np.float32]:
    """The ground's texture about 1.0, as the camera sees it below the horizon."""
    camera = view.camera
    origin = np.floor(view.position[:2] / _TILE_METRES) * _TILE_METRES
    camera_from_ground = view.camera_from_world.copy()
    camera_from_ground[:3, 3] += camera_from_ground[:3, :2] @ origin
    metres_per_pixel = _TILE_METRES / _TILE_PIXELS
    image_from_tile = camera.intrinsics @ camera_from_ground[:3, [0, 1, 3]] @ np.diag([metres_per_pixel] * 2 + [1.0])
    image_from_tile[1] -= horizon * image_from_tile[2]
    size = (camera.width, camera.height - horizon)
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
