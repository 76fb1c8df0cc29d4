"""Pictures of the world: what each camera sees at its own exposure, and which object each pixel belongs to.

Solids are painted from back to front. The order is exact for disjoint convex things: where a plane separates two
of them, the one on the camera's side of it cannot be hidden by the other.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from operator import itemgetter

import cv2
import numpy as np
from numpy.typing import NDArray

from bevformer_ros import geometry
from bevformer_ros.simulation.ground import HAZE, haze_share, paint_background
from bevformer_ros.simulation.rig import SimulatedCamera
from bevformer_ros.simulation.solids import ATLAS, FACES, SCENERY_SOLIDS, Solid, solid_of
from bevformer_ros.simulation.view import NEAR, SUBPIXEL_BITS, View
from bevformer_ros.simulation.world import World
from bevformer_ros.taxonomy import ATTRIBUTE_NAMES, CLASS_NAMES, NO_ATTRIBUTE

Array = NDArray[np.float64]

SCENERY = -1  # the owner of what is no object
_FAR = 140.0
_AMBIENT = 0.66
_SHADOW_CASTING_DISTANCE = 70.0


@dataclass(frozen=True)
class Picture:
    """image: (H, W, 3) uint8 BGR. owners: (H, W) index into world.objects of what a pixel shows, or SCENERY. whole:
    (objects,) how many pixels each object would have with nothing before it."""

    image: NDArray[np.uint8]
    owners: NDArray[np.int32]
    whole: NDArray[np.int64]


@dataclass(frozen=True)
class _Things:
    """Boxes with a look: centres, sizes (n, 3), yaws (n,), colours (n, 3) RGB, owners (n,) object index or SCENERY."""

    solids: tuple[Solid, ...]
    centers: Array
    sizes: Array
    yaws: Array
    colours: Array
    owners: NDArray[np.int64]

    def select(self, rows: NDArray[np.int64]) -> _Things:
        solids = tuple(self.solids[row] for row in rows)
        return _Things(
            solids, self.centers[rows], self.sizes[rows], self.yaws[rows], self.colours[rows], self.owners[rows]
        )


@dataclass(frozen=True)
class _Faces:
    """Faces in painting order. outlines: fixed-point pixels (4 or so, 2), None where out of view. bgr, owners: each."""

    outlines: list[NDArray[np.int32] | None]
    bgr: list[list[float]]
    owners: list[int]


def render(world: World, camera: SimulatedCamera, stamp_ns: int) -> Picture:
    """What a camera exposes at a stamp."""
    view = View.of(camera, world.world_from_base(stamp_ns))
    things = _things_in_view(world, view, stamp_ns)
    image = np.empty((camera.height, camera.width, 3), np.uint8)
    owners = np.full((camera.height, camera.width), SCENERY, np.int32)
    paint_background(image, view, world.ground, _shadows(things, view, world.light_from))
    whole = np.zeros(len(world.objects.labels), np.int64)
    if things.solids:
        _paint(image, owners, whole, _faces(things, view, world.light_from))
    return Picture(image, owners, whole)


def _paint(image: NDArray[np.uint8], owners: NDArray[np.int32], whole: NDArray[np.int64], faces: _Faces) -> None:
    any_object = False
    for owner, of_owner in groupby(zip(faces.outlines, faces.bgr, faces.owners, strict=True), itemgetter(2)):
        painted = [(outline, bgr) for outline, bgr, _ in of_owner if outline is not None]
        any_object = any_object or (owner != SCENERY and bool(painted))
        for outline, bgr in painted:
            cv2.fillConvexPoly(image, outline, bgr, cv2.LINE_AA, SUBPIXEL_BITS)
            if any_object:
                cv2.fillConvexPoly(owners, outline, owner, cv2.LINE_8, SUBPIXEL_BITS)
        if owner != SCENERY and painted:
            whole[owner] = _pixels_just_painted(owners, owner, [outline for outline, _ in painted])


def _pixels_just_painted(owners: NDArray[np.int32], owner: int, outlines: list[NDArray[np.int32]]) -> int:
    """Of an object that nothing hides yet."""
    left, top, width, height = cv2.boundingRect(np.concatenate(outlines))
    rows, columns = _around(top, top + height), _around(left, left + width)
    return int(np.count_nonzero(owners[rows, columns] == owner))


def _around(first: int, last: int) -> slice:
    """The pixels of a fixed-point interval, and one more at each end."""
    return slice(max((first >> SUBPIXEL_BITS) - 1, 0), max((last >> SUBPIXEL_BITS) + 2, 0))


@lru_cache(maxsize=8)
def _looks(world: World) -> tuple[Solid, ...]:
    """The solids of all objects, then of the scenery."""
    objects = world.objects
    attributes = ["" if index == NO_ATTRIBUTE else ATTRIBUTE_NAMES[index] for index in objects.resting]
    return (
        *(solid_of(CLASS_NAMES[label], attribute) for label, attribute in zip(objects.labels, attributes, strict=True)),
        *(SCENERY_SOLIDS[kind] for kind in world.scenery.kinds),
    )


def _things_in_view(world: World, view: View, stamp_ns: int) -> _Things:
    """Everything whose box touches the view, in painting order."""
    boxes, scenery = world.objects_at(stamp_ns), world.scenery
    things = _Things(
        solids=_looks(world),
        centers=np.concatenate([boxes.centers, scenery.centers]),
        sizes=np.concatenate([boxes.sizes, scenery.sizes]),
        yaws=np.concatenate([boxes.yaws, scenery.yaws]),
        colours=np.concatenate([world.objects.colours, scenery.colours]).astype(np.float64),
        owners=np.concatenate([np.arange(len(boxes)), np.full(len(scenery.kinds), SCENERY)]),
    )
    near = np.flatnonzero(np.linalg.norm(things.centers[:, :2] - view.position[:2], axis=1) < _FAR)
    near = near[_touches_view(things.select(near), view)]
    seen = things.select(near)
    footprints = geometry.box_corners(seen.centers, seen.sizes, seen.yaws)[:, [0, 1, 5, 4], :2]
    distances = np.linalg.norm(seen.centers[:, :2] - view.position[:2], axis=1)
    return seen.select(painting_order(_hidden_by_footprint(footprints, view.position[:2]), distances))


def _touches_view(things: _Things, view: View) -> NDArray[np.bool_]:
    """False for boxes that lie wholly outside one side of the view, tall shadows of near things included."""
    corners = geometry.apply(view.camera_from_world, geometry.box_corners(things.centers, things.sizes, things.yaws))
    intrinsics, camera = view.camera.intrinsics, view.camera
    left = corners[..., 0] * intrinsics[0, 0] + corners[..., 2] * (intrinsics[0, 2] + 1)
    right = corners[..., 2] * (camera.width - intrinsics[0, 2]) - corners[..., 0] * intrinsics[0, 0]
    return (left > 0).any(1) & (right > 0).any(1) & (corners[..., 2] > NEAR).any(1)


def _hidden_by_footprint(footprints: Array, eye: Array) -> NDArray[np.bool_]:
    """(n, n): whether thing i may be hidden by thing j and so comes before it, from the ground plans (n, 4, 2).

    A side of a plan that has all of another plan beyond it separates the two.
    """
    sides = np.roll(footprints, -1, axis=1) - footprints
    outward = np.stack([sides[..., 1], -sides[..., 0]], axis=-1)
    levels = np.einsum("nsd,nsd->ns", outward, footprints)
    beyond = np.einsum("nsd,mcd->nsmc", outward, footprints) - levels[..., None, None]
    separates = (beyond >= -1e-6).all(axis=3)
    eye_beyond = (outward @ eye - levels) > 0
    first_behind = (separates & eye_beyond[..., None]).any(axis=1)
    second_behind = (separates & ~eye_beyond[..., None]).any(axis=1)
    hidden = first_behind | second_behind.T
    return hidden & ~hidden.T & _share_directions(footprints, eye)


def _share_directions(footprints: Array, eye: Array) -> NDArray[np.bool_]:
    """(n, n): whether two ground plans overlap in bearing from the eye; only such can hide one another."""
    towards = footprints - eye
    centers = towards.mean(axis=1)
    bearing = np.arctan2(centers[:, 1], centers[:, 0])
    spread = geometry.wrap_angle(np.arctan2(towards[..., 1], towards[..., 0]) - bearing[:, None])
    half = np.abs(spread).max(axis=1)
    return np.abs(geometry.wrap_angle(bearing[:, None] - bearing[None])) <= half[:, None] + half[None]


def painting_order(hidden: NDArray[np.bool_], distances: Array) -> NDArray[np.int64]:
    """Indices from back to front. hidden: (n, n), i must come before j. Among the free ones the farthest comes
    first, and so it does where the relation runs in a circle."""
    waiting_for = hidden.sum(axis=0).tolist()
    farthest_first = np.argsort(-distances, kind="stable").tolist()
    rank = {index: place for place, index in enumerate(farthest_first)}
    free = [rank[index] for index in farthest_first if waiting_for[index] == 0]
    done = [False] * len(rank)
    order: list[int] = []
    while len(order) < len(rank):
        pick = farthest_first[heapq.heappop(free)] if free else next(i for i in farthest_first if not done[i])
        if done[pick]:
            continue
        done[pick] = True
        order.append(pick)
        for follower in np.flatnonzero(hidden[pick]).tolist():
            waiting_for[follower] -= 1
            if waiting_for[follower] == 0:
                heapq.heappush(free, rank[follower])
    return np.array(order, np.int64)


def _part_order(solid: Solid, eye: Array) -> NDArray[np.int64]:
    """Painting order of a solid's parts for an eye (3,) in the solid's unit coordinates, as rows of the atlas."""
    region = (eye >= solid.high).tobytes()
    order = _order_in_region(solid, region)
    if order is None:
        distances = np.square((solid.low + solid.high) / 2 - eye).sum(-1)
        order = painting_order(_hidden_by_part(solid, region), distances) + ATLAS.first_part[solid]
    return order


@lru_cache(maxsize=4096)
def _order_in_region(solid: Solid, region: bytes) -> NDArray[np.int64] | None:
    """The order that holds wherever the eye lies in a region; None if there the relation runs in a circle."""
    hidden = _hidden_by_part(solid, region)
    order = painting_order(hidden, np.zeros(len(hidden)))
    return None if np.tril(hidden[np.ix_(order, order)]).any() else order + ATLAS.first_part[solid]


def _hidden_by_part(solid: Solid, region: bytes) -> NDArray[np.bool_]:
    """(parts, parts): whether part i may be hidden by part j. region: a bool for each part and axis, whether the
    eye lies beyond the part's high side."""
    eye_above = np.frombuffer(region, np.bool_).reshape(-1, 3)
    below = solid.high[:, None] <= solid.low[None] + 1e-9  # (parts, parts, 3): i ends before j begins
    behind = (below & eye_above[:, None]).any(-1)
    before = (below & ~eye_above[:, None]).any(-1)
    hidden = np.asarray(behind | before.T)
    return hidden & ~hidden.T


def _faces(things: _Things, view: View, light_from: Array) -> _Faces:
    """The faces turned to the camera, in painting order, shaded and projected."""
    rotations = _rotations(things.yaws)
    eyes = np.einsum("nij,ni->nj", rotations, view.position - things.centers) / things.sizes
    orders = [_part_order(solid, eye) for solid, eye in zip(things.solids, eyes, strict=True)]
    parts = np.concatenate(orders)
    thing = np.repeat(np.arange(len(orders)), [len(order) for order in orders])
    turned_to_us = np.einsum("pfd,pd->pf", ATLAS.normals[parts], eyes[thing]) > ATLAS.levels[parts]
    row, side = np.nonzero(turned_to_us)
    thing_of_face, part_of_face = thing[row], parts[row]
    corners = ATLAS.vertices[part_of_face[:, None], FACES[side]] * things.sizes[thing_of_face, None]
    camera_from_thing = view.camera_from_world[:3, :3] @ rotations
    centers = geometry.apply(view.camera_from_world, things.centers)
    corners = corners @ camera_from_thing[thing_of_face].transpose(0, 2, 1) + centers[thing_of_face, None]
    paints = ATLAS.paints[part_of_face, side]
    paints = np.where(ATLAS.own[part_of_face, side, None], things.colours[thing_of_face], paints)
    normals = ATLAS.normals[part_of_face, side] / things.sizes[thing_of_face]
    light = np.einsum("nij,i->nj", rotations, light_from)[thing_of_face]
    colours = _shaded(paints, normals, light, corners[..., 2].mean(-1))
    return _Faces(view.polygons(corners), colours[:, ::-1].tolist(), things.owners[thing_of_face].tolist())


def _rotations(yaws: Array) -> Array:
    """(n, 3, 3) about z."""
    rotations = np.zeros((len(yaws), 3, 3))
    rotations[:, 0, 0] = rotations[:, 1, 1] = np.cos(yaws)
    rotations[:, 1, 0] = np.sin(yaws)
    rotations[:, 0, 1] = -rotations[:, 1, 0]
    rotations[:, 2, 2] = 1.0
    return rotations


def _shaded(paints: Array, normals: Array, light: Array, depths: Array) -> Array:
    """RGB (m, 3) of faces under sun and sky, with haze over distance. normals, light: (m, 3), in one frame."""
    facing = np.einsum("md,md->m", normals, light) / np.linalg.norm(normals, axis=-1)
    lit = paints * (_AMBIENT + (1.08 - _AMBIENT) * np.clip(facing, 0.0, 1.0))[:, None]
    share = haze_share(depths)[:, None]
    return np.clip(lit * (1 - share) + HAZE * share, 0, 255)


def _shadows(things: _Things, view: View, light_from: Array) -> list[Array]:
    """Ground polygons (n, 3) where boxes keep the sun away; those of far things are too thin to see."""
    shift = -light_from[:2] / light_from[2]
    near = np.linalg.norm(things.centers[:, :2] - view.position[:2], axis=1) < _SHADOW_CASTING_DISTANCE
    plans = geometry.box_corners(things.centers[near], things.sizes[near], things.yaws[near])[:, [0, 1, 5, 4], :2]
    reaches = np.concatenate([plans, plans + shift * things.sizes[near, None, 2:] * 0.9], axis=1)
    polygons = []
    for reach in np.ascontiguousarray(reaches, np.float32):
        hull = cv2.convexHull(reach)[:, 0]
        polygons.append(np.column_stack([hull, np.zeros(len(hull))]))
    return polygons
