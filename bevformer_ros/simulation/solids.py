"""What things look like: each kind is a handful of tapered boxes in its own unit box.

Unit coordinates run from -0.5 to 0.5 along length (forward), width (left) and height (up), and every kind reaches
all six sides of its box. Any two parts of a kind are separated by an axis-aligned plane: the painter relies on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Span = tuple[float, float]
Paint = tuple[int, int, int] | Literal["own"]  # RGB, or the object's own colour

_TYRE = (34, 34, 38)
_GLASS = (62, 80, 98)
_CHASSIS = (58, 60, 64)
_HEADLIGHT = (255, 248, 214)
_TAIL_LIGHT = (210, 30, 34)
_SKIN = (224, 178, 146)
_TROUSERS = (52, 56, 78)
_WHITE = (238, 238, 236)
_METAL = (128, 132, 138)
_WOOD = (104, 78, 54)


@dataclass(frozen=True)
class Part:
    """A box over x, y, z whose upper side is shrunk about its middle by the factors taper (along x, y).

    shift moves the upper side along x. roof: paint of the upper side where it differs.
    """

    x: Span
    y: Span
    z: Span
    paint: Paint
    taper: tuple[float, float] = (1.0, 1.0)
    shift: float = 0.0
    roof: Paint | None = None


@dataclass(frozen=True, eq=False)
class Solid:
    """A kind as arrays. vertices: (parts, 8, 3), four below, four above, both counter-clockwise from above.
    low, high: (parts, 3) extents. paints: (parts, 6, 3) RGB by face, in the order of FACES; own: (parts, 6), where
    the object's own colour takes the place of the paint."""

    vertices: Array
    low: Array
    high: Array
    paints: Array
    own: NDArray[np.bool_]


# Corner indices of a part's faces, counter-clockwise seen from outside: below, above, and the four sides.
FACES = np.array([(0, 3, 2, 1), (4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7)])


def _solid(*parts: Part) -> Solid:
    vertices = np.stack([_part_vertices(part) for part in parts])
    by_face = [(part.paint, part.roof or part.paint, *[part.paint] * 4) for part in parts]
    paints = np.array([[(0, 0, 0) if paint == "own" else paint for paint in faces] for faces in by_face], np.float64)
    own = np.array([[paint == "own" for paint in faces] for faces in by_face])
    return Solid(vertices, vertices.min(axis=1), vertices.max(axis=1), paints, own)


def _part_vertices(part: Part) -> Array:
    def ring(x: Span, y: Span, z: float) -> list[tuple[float, float, float]]:
        return [(x[0], y[0], z), (x[1], y[0], z), (x[1], y[1], z), (x[0], y[1], z)]

    upper_x = _shrunk(part.x, part.taper[0], part.shift)
    return np.array(ring(part.x, part.y, part.z[0]) + ring(upper_x, _shrunk(part.y, part.taper[1], 0.0), part.z[1]))


def _shrunk(span: Span, factor: float, shift: float) -> Span:
    middle, half = (span[0] + span[1]) / 2 + shift, (span[1] - span[0]) / 2 * factor
    return middle - half, middle + half


def _wheels(axles: tuple[float, ...], half_length: float, top: float, inner: float) -> tuple[Part, ...]:
    sides: tuple[Span, Span] = ((-0.49, -inner), (inner, 0.49))
    return tuple(Part((x - half_length, x + half_length), y, (-0.5, top), _TYRE) for x in axles for y in sides)


def _lights(front: Span, z: Span, inner: float = 0.26, outer: float = 0.47) -> tuple[Part, ...]:
    rear: Span = (-front[1], -front[0])
    sides: tuple[Span, Span] = ((-outer, -inner), (inner, outer))
    return tuple(Part(x, y, z, paint) for x, paint in ((front, _HEADLIGHT), (rear, _TAIL_LIGHT)) for y in sides)


_CAR = _solid(
    *_wheels((-0.31, 0.30), 0.068, -0.13, 0.39),
    *(Part(x, (-0.38, 0.38), (-0.40, -0.13), _CHASSIS) for x in ((-0.38, -0.24), (0.23, 0.37))),
    *(Part(x, (-0.49, 0.49), (-0.38, -0.13), "own") for x in ((-0.49, -0.38), (-0.24, 0.23), (0.37, 0.49))),
    Part((-0.49, 0.49), (-0.5, 0.5), (-0.13, 0.06), "own"),
    *_lights((0.49, 0.5), (-0.09, 0.03)),
    Part((-0.43, 0.24), (-0.46, 0.46), (0.06, 0.42), _GLASS, taper=(0.72, 0.84), shift=-0.02),
    Part((-0.36, 0.13), (-0.39, 0.39), (0.42, 0.5), "own", taper=(0.94, 0.94)),
)
_BUS = _solid(
    *_wheels((-0.29, 0.31), 0.046, -0.25, 0.40),
    *(Part(x, (-0.39, 0.39), (-0.42, -0.25), _CHASSIS) for x in ((-0.337, -0.243), (0.263, 0.357))),
    *(Part(x, (-0.49, 0.49), (-0.41, -0.25), "own") for x in ((-0.496, -0.337), (-0.243, 0.263), (0.357, 0.496))),
    Part((-0.496, 0.496), (-0.5, 0.5), (-0.25, 0.0), "own"),
    *_lights((0.496, 0.5), (-0.2, -0.11), inner=0.3),
    Part((-0.49, 0.49), (-0.48, 0.48), (0.0, 0.28), _GLASS),
    Part((-0.496, 0.496), (-0.5, 0.5), (0.28, 0.5), "own"),
)
_TRUCK = _solid(
    *_wheels((-0.36, -0.23, 0.34), 0.058, -0.24, 0.34),
    Part((-0.48, 0.18), (-0.33, 0.33), (-0.36, -0.22), _CHASSIS),
    Part((-0.5, 0.16), (-0.5, 0.5), (-0.22, 0.5), _WHITE),
    *(Part(x, (-0.46, 0.46), (-0.38, -0.24), "own") for x in ((0.19, 0.28), (0.40, 0.495))),
    Part((0.19, 0.495), (-0.47, 0.47), (-0.24, 0.04), "own"),
    *_lights((0.495, 0.5), (-0.2, -0.1))[:2],
    Part((0.19, 0.48), (-0.45, 0.45), (0.04, 0.28), _GLASS, taper=(0.94, 1.0), shift=-0.008),
    Part((0.19, 0.46), (-0.46, 0.46), (0.28, 0.40), "own"),
)
_TRAILER = _solid(
    *_wheels((-0.40, -0.31, -0.22), 0.036, -0.27, 0.32),
    Part((-0.46, 0.46), (-0.31, 0.31), (-0.34, -0.24), _CHASSIS),
    Part((0.26, 0.30), (-0.31, 0.31), (-0.5, -0.34), _CHASSIS),
    Part((-0.5, 0.5), (-0.5, 0.5), (-0.24, 0.02), "own"),
    Part((-0.498, 0.498), (-0.495, 0.495), (0.02, 0.12), (70, 96, 140)),
    Part((-0.5, 0.5), (-0.5, 0.5), (0.12, 0.5), "own"),
)
_CONSTRUCTION_VEHICLE = _solid(
    Part((-0.44, 0.26), (-0.5, -0.22), (-0.5, -0.22), _TYRE, taper=(0.86, 1.0)),
    Part((-0.44, 0.26), (0.22, 0.5), (-0.5, -0.22), _TYRE, taper=(0.86, 1.0)),
    Part((-0.3, 0.12), (-0.2, 0.2), (-0.42, -0.22), _CHASSIS),
    Part((-0.5, 0.22), (-0.44, 0.44), (-0.22, -0.08), "own"),
    Part((-0.5, -0.2), (-0.44, 0.44), (-0.08, 0.14), "own", taper=(0.9, 0.94)),
    Part((-0.18, 0.16), (0.08, 0.44), (-0.08, 0.16), _GLASS, roof="own"),
    Part((-0.18, 0.16), (0.08, 0.44), (0.16, 0.32), _GLASS, taper=(0.86, 0.9), roof="own"),
    Part((0.02, 0.24), (-0.2, 0.04), (-0.08, 0.5), "own", taper=(0.5, 1.0), shift=0.05),
    Part((0.24, 0.42), (-0.16, 0.0), (0.26, 0.44), "own"),
    Part((0.42, 0.49), (-0.16, 0.0), (-0.22, 0.42), "own"),
    Part((0.34, 0.5), (-0.3, 0.14), (-0.48, -0.22), _METAL, taper=(0.7, 1.0)),
)


def _two_wheeler(frame: float, with_rider: bool) -> Solid:
    """frame: half width of the frame and its tank or bars, as a share of the width."""
    top = 0.06 if with_rider else 0.36
    wheel_top = -0.06 if with_rider else 0.12
    parts = [
        Part((-0.5, -0.2), (-0.09, 0.09), (-0.5, wheel_top), _TYRE),
        Part((0.2, 0.5), (-0.09, 0.09), (-0.5, wheel_top), _TYRE),
        Part((-0.19, 0.19), (-frame, frame), (-0.36, wheel_top), _CHASSIS),
        Part((-0.36, 0.2), (-frame, frame), (wheel_top, top), "own"),
        Part((0.21, 0.27), (-0.12, 0.12), (wheel_top, top), _METAL),
        Part((0.21, 0.27), (-0.5, 0.5), (top, top + 0.08 if with_rider else 0.5), _METAL),
    ]
    if with_rider:
        parts += [
            Part((-0.19, 0.14), (-0.42, -frame - 0.01), (-0.24, top), _TROUSERS),
            Part((-0.19, 0.14), (frame + 0.01, 0.42), (-0.24, top), _TROUSERS),
            Part((-0.24, 0.06), (-0.42, 0.42), (top, 0.32), (196, 176, 52), taper=(0.8, 0.9), shift=0.03),
            Part((-0.14, 0.08), (-0.2, 0.2), (0.32, 0.5), (44, 46, 54), taper=(0.8, 0.8)),
        ]
    return _solid(*parts)


_PEDESTRIAN = _solid(
    Part((-0.12, 0.5), (-0.34, -0.06), (-0.5, -0.04), _TROUSERS, taper=(0.5, 1.0), shift=-0.16),
    Part((-0.5, 0.12), (0.06, 0.34), (-0.5, -0.04), _TROUSERS, taper=(0.5, 1.0), shift=0.16),
    Part((-0.26, 0.26), (-0.34, 0.34), (-0.04, 0.32), "own", taper=(1.0, 1.0)),
    Part((-0.16, 0.3), (-0.5, -0.35), (-0.06, 0.3), "own", taper=(0.7, 0.8)),
    Part((-0.3, 0.16), (0.35, 0.5), (-0.06, 0.3), "own", taper=(0.7, 0.8)),
    Part((-0.2, 0.22), (-0.18, 0.18), (0.32, 0.46), _SKIN),
    Part((-0.22, 0.2), (-0.19, 0.19), (0.46, 0.5), (72, 52, 40)),
)
_TRAFFIC_CONE = _solid(
    Part((-0.5, 0.5), (-0.5, 0.5), (-0.5, -0.44), _TYRE),
    Part((-0.36, 0.36), (-0.36, 0.36), (-0.44, -0.1), "own", taper=(0.72, 0.72)),
    Part((-0.26, 0.26), (-0.26, 0.26), (-0.1, 0.14), _WHITE, taper=(0.72, 0.72)),
    Part((-0.187, 0.187), (-0.187, 0.187), (0.14, 0.5), "own", taper=(0.35, 0.35)),
)
_STRIPES = tuple(np.linspace(-0.5, 0.5, 8))
_BARRIER = _solid(
    Part((-0.5, 0.5), (-0.46, -0.3), (-0.5, 0.0), _METAL, taper=(0.3, 1.0)),
    Part((-0.5, 0.5), (0.3, 0.46), (-0.5, 0.0), _METAL, taper=(0.3, 1.0)),
    *(
        Part((-0.16, 0.16), (float(left), float(right)), (0.0, 0.5), "own" if index % 2 == 0 else _WHITE)
        for index, (left, right) in enumerate(pairwise(_STRIPES))
    ),
    Part((-0.08, 0.08), (-0.3, 0.3), (-0.24, -0.06), _WHITE),
)


def _building(floors: int) -> Solid:
    edges = np.linspace(-0.5, 0.46, floors + 1)
    parts = []
    for below, above in pairwise(edges):
        sill = below + 0.42 * (above - below)
        parts.append(Part((-0.5, 0.5), (-0.5, 0.5), (float(below), float(sill)), "own"))
        parts.append(Part((-0.49, 0.49), (-0.49, 0.49), (float(sill), float(above)), (92, 108, 124)))
    return _solid(*parts, Part((-0.5, 0.5), (-0.5, 0.5), (0.46, 0.5), "own", roof=(120, 116, 112)))


SCENERY_SOLIDS = {
    "building": _building(4),
    "tree": _solid(
        Part((-0.06, 0.06), (-0.06, 0.06), (-0.5, -0.16), _WOOD),
        Part((-0.4, 0.4), (-0.4, 0.4), (-0.16, 0.12), "own", taper=(1.25, 1.25)),
        Part((-0.5, 0.5), (-0.5, 0.5), (0.12, 0.32), "own", taper=(0.8, 0.8)),
        Part((-0.4, 0.4), (-0.4, 0.4), (0.32, 0.5), "own", taper=(0.45, 0.45)),
    ),
    "lamp": _solid(
        Part((-0.3, 0.3), (-0.5, -0.44), (-0.5, 0.5), "own"),
        Part((-0.25, 0.25), (-0.44, 0.5), (0.46, 0.48), "own"),
        Part((-0.5, 0.5), (0.3, 0.5), (0.44, 0.46), _WHITE),
    ),
}

_BY_CLASS = {
    "barrier": _BARRIER,
    "bus": _BUS,
    "car": _CAR,
    "construction_vehicle": _CONSTRUCTION_VEHICLE,
    "pedestrian": _PEDESTRIAN,
    "traffic_cone": _TRAFFIC_CONE,
    "trailer": _TRAILER,
    "truck": _TRUCK,
}
_TWO_WHEELERS = {
    (name, attribute): _two_wheeler(frame, attribute == "cycle.with_rider")
    for name, frame in (("bicycle", 0.06), ("motorcycle", 0.24))
    for attribute in ("cycle.with_rider", "cycle.without_rider")
}


def solid_of(class_name: str, attribute: str) -> Solid:
    """The look of a class; a cycle's depends on whether somebody rides it."""
    return _TWO_WHEELERS.get((class_name, attribute)) or _BY_CLASS[class_name]


@dataclass(frozen=True)
class Atlas:
    """The parts of all kinds in one row of P: `first_part[solid]` is where a kind's begin. normals: (P, 6, 3) and
    levels: (P, 6) are the planes of the faces: outside lies where normals @ point > levels."""

    first_part: dict[Solid, int]
    vertices: Array
    normals: Array
    levels: Array
    paints: Array
    own: NDArray[np.bool_]


def _atlas(solids: tuple[Solid, ...]) -> Atlas:
    ends = np.cumsum([len(solid.vertices) for solid in solids]).tolist()
    vertices = np.concatenate([solid.vertices for solid in solids])
    corners = vertices[:, FACES]  # (P, 6, 4, 3)
    normals = np.cross(corners[:, :, 1] - corners[:, :, 0], corners[:, :, 3] - corners[:, :, 0])
    return Atlas(
        dict(zip(solids, [0, *ends], strict=False)),
        vertices,
        normals,
        levels=np.einsum("pfd,pfd->pf", normals, corners[:, :, 0]),
        paints=np.concatenate([solid.paints for solid in solids]),
        own=np.concatenate([solid.own for solid in solids]),
    )


ATLAS = _atlas((*_BY_CLASS.values(), *_TWO_WHEELERS.values(), *SCENERY_SOLIDS.values()))
