"""Pictures through a lens that bends lines: the world is rendered on the faces of a cube about the camera, in which
every pixel's ray then finds what it shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from bevformer_ros import geometry
from bevformer_ros.lens import PINHOLE, Lens, unproject
from bevformer_ros.simulation.render import SCENERY, Picture, render
from bevformer_ros.simulation.rig import SimulatedCamera
from bevformer_ros.simulation.world import World

Array = NDArray[np.float64]

# camera_from_face: ahead, right, left, down, up, behind.
_FACES = tuple(
    np.array(columns, np.float64).T
    for columns in (
        ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
        ((0, 0, -1), (0, 1, 0), (1, 0, 0)),
        ((0, 0, 1), (0, 1, 0), (-1, 0, 0)),
        ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
        ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
        ((-1, 0, 0), (0, 1, 0), (0, 0, -1)),
    )
)


@dataclass(frozen=True)
class _Face:
    """A pinhole picture and who looks into it. rows, columns: (n,) of the pixels of the lens's picture. places: (n, 2)
    column and row in the face's picture."""

    size: tuple[int, int]
    intrinsics: Array
    camera_from_face: Array
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    places: NDArray[np.float32]


def render_through_lens(world: World, camera: SimulatedCamera, stamp_ns: int) -> Picture:
    """What a camera exposes at a stamp; black where its lens sees nothing."""
    image = np.zeros((camera.height, camera.width, 3), np.uint8)
    owners = np.full((camera.height, camera.width), SCENERY, np.int32)
    whole = np.zeros(len(world.objects.labels))
    for face in _faces(camera.lens, tuple(camera.intrinsics.ravel().tolist()), (camera.width, camera.height)):
        turned = camera.base_from_camera.copy()
        turned[:3, :3] = turned[:3, :3] @ face.camera_from_face
        width, height = face.size
        pinhole = replace(
            camera, width=width, height=height, intrinsics=face.intrinsics, base_from_camera=turned, lens=PINHOLE
        )
        picture = render(world, pinhole, stamp_ns)
        columns, rows = _in_lines(face.places)
        seen = cv2.remap(picture.image, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        image[face.rows, face.columns] = seen.reshape(-1, 3)[: len(face.rows)]
        nearest = np.rint(face.places).astype(int)
        shown = picture.owners[nearest[:, 1], nearest[:, 0]]
        owners[face.rows, face.columns] = shown
        whole += _whole_through_lens(picture, shown)
    return Picture(image, owners, np.rint(whole).astype(np.int64))


def _whole_through_lens(face: Picture, shown: NDArray[np.int32]) -> Array:
    """(objects,) Picture.whole of a face's part of the lens's picture. shown: (n,) the owners of its pixels. What is
    hidden is taken to have as many pixels for each of the face's as what shows; all of them where nothing does."""
    count = len(face.whole) + 1
    in_lens, in_face = (np.bincount(owners.ravel() - SCENERY, minlength=count)[1:] for owners in (shown, face.owners))
    return face.whole * np.where(in_face > 0, in_lens / np.maximum(in_face, 1), 1.0)


def _in_lines(places: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Columns and rows (m, 1024), filled up with zeros: cv2.remap takes no picture of more than 32767 columns."""
    padded = np.zeros((-(-len(places) // 1024) * 1024, 2), np.float32)
    padded[: len(places)] = places
    columns, rows = np.ascontiguousarray(padded.T).reshape(2, -1, 1024)
    return columns, rows


@lru_cache(maxsize=16)
def _faces(lens: Lens, intrinsics: tuple[float, ...], size: tuple[int, int]) -> tuple[_Face, ...]:
    matrix = np.array(intrinsics).reshape(3, 3)
    columns, rows = np.meshgrid(np.arange(size[0], dtype=np.float64), np.arange(size[1], dtype=np.float64))
    rays = unproject(lens, matrix, np.stack([columns, rows], axis=-1))
    ahead = np.stack(_FACES)[:, :, 2]  # of each face
    nearest = np.where(np.isnan(rays[..., 2]), -1, (rays @ ahead.T).argmax(axis=-1))
    return tuple(_made_faces(rays, nearest, float(matrix[0, 0])))


def _made_faces(rays: Array, nearest: NDArray[np.int64], focal: float) -> Iterator[_Face]:
    """nearest: (H, W) index of the face that a pixel looks into, or -1. focal: of all faces, in pixels."""
    for index, camera_from_face in enumerate(_FACES):
        rows, columns = np.nonzero(nearest == index)
        if not rows.size:
            continue
        pixels, _ = geometry.project(np.diag([focal, focal, 1.0]), rays[rows, columns] @ camera_from_face)
        first = np.floor(pixels.min(axis=0)) - 1
        width, height = (np.ceil(pixels.max(axis=0)) + 2 - first).astype(int).tolist()
        intrinsics = np.array([[focal, 0.0, -first[0]], [0.0, focal, -first[1]], [0.0, 0.0, 1.0]])
        places = (pixels - first).astype(np.float32)
        yield _Face((width, height), intrinsics, camera_from_face, rows, columns, places)
