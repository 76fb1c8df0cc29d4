"""Pictures of the world: what each camera sees at its own exposure, and which object each pixel belongs to.

Solids are painted from back to front. The order is exact for disjoint convex things: where a plane separates two
of them, the one on the camera's side of it cannot be hidden by the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bevformer_ros import geometry
from bevformer_ros.simulation.ground import HAZE, haze_share, paint_background
from bevformer_ros.simulation.rig import SimulatedCamera
from bevformer_ros.simulation.solids import FACES, SCENERY_SOLIDS, Solid, solid_of
from bevformer_ros.simulation.view import NEAR, SUBPIXEL_BITS, View, fixed_point
from bevformer_ros.simulation.world import World
from bevformer_ros.taxonomy import ATTRIBUTE_NAMES, CLASS_NAMES, NO_ATTRIBUTE

Array = NDArray[np.float64]

SCENERY = -1  # the owner of what is no object
_FAR = 140.0
_AMBIENT = 0.66
_SHADOW_CASTING_DISTANCE = 70.0


@dataclass(frozen=True)
class Picture:
    """image: (H, W, 3) uint8 BGR. owners: (H, W) index into world.objects of what a pixel shows, or SCENERY."""

    image: NDArray[np.uint8]
    owners: NDArray[np.int32]


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
class _Face:
    pixels: NDArray[np.int32]
    bgr: tuple[float, float, float]
    owner: int


def render(world: World, camera: SimulatedCamera, stamp_ns: int) -> Picture:
    """What a camera exposes at a stamp."""
    view = View.of(camera, world.world_from_base(stamp_ns))
    things = _things_in_view(world, view, stamp_ns)
    image = np.empty((camera.height, camera.width, 3), np.uint8)
    owners = np.full((camera.height, camera.width), SCENERY, np.int32)
    paint_background(image, view, world.road, _shadows(things, view, world.light_from))
    for face in _faces(things, view, world.light_from):
        cv2.fillConvexPoly(image, face.pixels, face.bgr, cv2.LINE_AA, SUBPIXEL_BITS)
        cv2.fillConvexPoly(owners, face.pixels, face.owner, cv2.LINE_8, SUBPIXEL_BITS)
    return Picture(image, owners)


def _things_in_view(world: World, view: View, stamp_ns: int) -> _Things:
    """Everything whose box touches the view, in painting order."""
    boxes, scenery = world.objects_at(stamp_ns), world.scenery
    attributes = ["" if index == NO_ATTRIBUTE else ATTRIBUTE_NAMES[index] for index in boxes.attributes]
    object_solids = [
        solid_of(CLASS_NAMES[label], attribute) for label, attribute in zip(boxes.labels, attributes, strict=True)
    ]
    things = _Things(
        solids=(*object_solids, *(SCENERY_SOLIDS[kind] for kind in scenery.kinds)),
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
    waiting_for = hidden.sum(axis=0)
    remaining = distances.astype(np.float64).copy()
    order = np.empty(len(distances), np.int64)
    for step in range(len(order)):
        free = np.where(waiting_for <= 0, remaining, -np.inf)
        pick = int(free.argmax())
        if free[pick] == -np.inf:
            pick = int(remaining.argmax())
        order[step] = pick
        remaining[pick] = -np.inf
        waiting_for = waiting_for - hidden[pick]
    return order


def _part_order(solid: Solid, eye: Array) -> NDArray[np.int64]:
    """Painting order of a solid's parts for an eye (3,) in the solid's unit coordinates."""
    below = solid.high[:, None] <= solid.low[None] + 1e-9  # (parts, parts, 3): i ends before j begins
    eye_above = eye >= solid.high  # (parts, 3)
    behind = (below & eye_above[:, None]).any(-1)
    before = (below & ~eye_above[:, None]).any(-1)
    hidden = np.asarray(behind | before.T)
    return painting_order(hidden & ~hidden.T, np.square((solid.low + solid.high) / 2 - eye).sum(-1))


def _faces(things: _Things, view: View, light_from: Array) -> list[_Face]:
    """The faces turned to the camera, in painting order, shaded and projected."""
    if len(things.solids) == 0:
        return []
    vertices, paints, owners = [], [], []
    for solid, center, size, yaw, colour, owner in zip(
        things.solids, things.centers, things.sizes, things.yaws, things.colours, things.owners, strict=True
    ):
        world_from_unit = _rotation(yaw) * size
        eye = np.linalg.solve(world_from_unit, view.position - center)
        order = _part_order(solid, eye)
        vertices.append(solid.vertices[order] @ world_from_unit.T + center)
        paints += [[colour if paint == "own" else paint for paint in solid.paints[part]] for part in order]
        owners += [int(owner)] * len(order)
    corners = geometry.apply(view.camera_from_world, np.concatenate(vertices))[:, FACES]  # (parts, 6, 4, 3)
    sides = corners[:, :, [1, 3]] - corners[:, :, :1]
    normals = np.asarray(np.cross(sides[:, :, 0], sides[:, :, 1]), np.float64)
    turned_to_us = np.einsum("pfd,pfd->pf", normals, corners[:, :, 0]) < 0
    in_view = (corners[..., 2] > NEAR).any(-1)
    colours = _shaded(np.array(paints, np.float64), normals, corners[..., 2].mean(-1), view, light_from)
    return _projected(corners, colours, turned_to_us & in_view, owners, view)


def _rotation(yaw: float) -> Array:
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


def _shaded(paints: Array, normals: Array, depths: Array, view: View, light_from: Array) -> Array:
    """RGB (parts, 6, 3) under sun and sky, with haze over distance."""
    lengths = np.linalg.norm(normals, axis=-1, keepdims=True)
    light_camera = view.camera_from_world[:3, :3] @ light_from
    sun = np.clip(normals / np.maximum(lengths, 1e-12) @ light_camera, 0.0, 1.0)
    lit = paints * (_AMBIENT + (1.08 - _AMBIENT) * sun)[..., None]
    share = haze_share(depths)[..., None]
    return np.clip(lit * (1 - share) + HAZE * share, 0, 255)


def _projected(corners: Array, colours: Array, wanted: NDArray[np.bool_], owners: list[int], view: View) -> list[_Face]:
    pixels, depths = geometry.project(view.camera.intrinsics, corners)
    whole = (depths > NEAR).all(-1) & (np.abs(np.nan_to_num(pixels, nan=np.inf)).max(axis=(-1, -2)) < 4096)
    outside = (pixels.max(-2) < -1).any(-1) | (pixels.min(-2) > (view.camera.width, view.camera.height)).any(-1)
    fixed = fixed_point(np.nan_to_num(np.where(whole[..., None, None], pixels, 0.0)))
    faces = []
    for part, side in np.argwhere(wanted & ~(whole & outside)):
        outline = fixed[part, side] if whole[part, side] else view.polygon_of_camera_points(corners[part, side])
        if outline is not None:
            red, green, blue = colours[part, side].tolist()
            faces.append(_Face(outline, (blue, green, red), owners[part]))
    return faces


def _shadows(things: _Things, view: View, light_from: Array) -> list[Array]:
    """Ground polygons (n, 3) where boxes keep the sun away; those of far things are too thin to see."""
    shift = -light_from[:2] / light_from[2]
    near = np.linalg.norm(things.centers[:, :2] - view.position[:2], axis=1) < _SHADOW_CASTING_DISTANCE
    polygons = []
    for center, size, yaw in zip(things.centers[near], things.sizes[near], things.yaws[near], strict=True):
        plan = geometry.box_corners(center[None], size[None], [yaw])[0, [0, 1, 5, 4], :2]
        reach = np.concatenate([plan, plan + shift * size[2] * 0.9])
        hull = cv2.convexHull(reach.astype(np.float32))[:, 0]
        polygons.append(np.column_stack([hull, np.zeros(len(hull))]))
    return polygons
