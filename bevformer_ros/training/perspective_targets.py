"""Which location of which feature map learns which object of an image (FCOS, Tian et al. 2019, as DD3D uses it).

Shapes: M images, K classes, n objects of an image, A locations of all levels of an image, P positive locations.
A location is the pixel (column * stride, row * stride) of the network input, without an offset of half a stride.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bevformer_ros.training.config import PerspectiveLossConfig

NO_ATTRIBUTE = -1


class PerspectiveTruth(NamedTuple):
    """The n objects of one image; the boxes are in the camera's optical frame.

    boxes2d: (n, 4) left, top, right, bottom in pixels of the network input. labels: (n,) int64. centers: (n, 3) metres,
    in front of the camera. sizes: (n, 3) length, width, height. rotations: (n, 3, 3) camera_from_object, x along the
    length, z up. attributes: (n,) int64, NO_ATTRIBUTE where the object has none. speeds: (n,) m/s, NaN where unknown.
    """

    boxes2d: Tensor
    labels: Tensor
    centers: Tensor
    sizes: Tensor
    rotations: Tensor
    attributes: Tensor
    speeds: Tensor


class PerspectiveTargets(NamedTuple):
    """What the positive locations learn.

    places: (P,) index of the location among all, ordered by level, image, row, column. images: (P,). locations:
    (P, 2) pixels. sides: (P, 4) pixels from the location to the left, top, right and bottom of the 2D box.
    centerness: (P,) 1 at the centre of the 2D box, 0 at its border. objects: (P,) row of `truth`, which holds the
    objects of all images.
    """

    places: Tensor
    images: Tensor
    locations: Tensor
    sides: Tensor
    centerness: Tensor
    objects: Tensor
    truth: PerspectiveTruth


def assign_targets(
    shapes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    truth: Sequence[PerspectiveTruth],
    config: PerspectiveLossConfig,
) -> PerspectiveTargets:
    """shapes: (height, width) of every level's feature map. truth: one entry per image.

    A location learns an object if it lies in the object's 2D box, within center_radius strides of the box's centre in
    both directions, and the box's size fits the level; of several such objects the one with the smallest 2D box.
    Raises ValueError if shapes, strides and size_ranges do not name the same levels.
    """
    if not len(shapes) == len(strides) == len(config.size_ranges):
        raise ValueError(
            f"shapes, strides and size_ranges must have one entry per level, got {len(shapes)}, {len(strides)} and "
            f"{len(config.size_ranges)}"
        )
    device = truth[0].boxes2d.device
    starts = torch.tensor([0, *(len(image.labels) for image in truth[:-1])]).cumsum(0).tolist()
    chosen, locations, sides = [], [], []
    for (height, width), stride, size_range in zip(shapes, strides, config.size_ranges, strict=True):
        level_locations = grid_locations(height, width, stride, device)
        for image, start in zip(truth, starts, strict=True):
            boxes = image.boxes2d.float()
            distances = sides_from(level_locations, boxes)
            index = _smallest_object(level_locations, distances, boxes, stride * config.center_radius, size_range)
            chosen.append(torch.where(index >= 0, index + start, index))
            sides.append(_pick(distances, index))
            locations.append(level_locations)
    objects, side = torch.cat(chosen), torch.cat(sides)
    places = (objects >= 0).nonzero().squeeze(1)
    return PerspectiveTargets(
        places=places,
        images=_image_of_places(shapes, len(truth), device)[places],
        locations=torch.cat(locations)[places],
        sides=side[places],
        centerness=centerness(side[places]),
        objects=objects[places],
        truth=PerspectiveTruth(*(torch.cat(parts) for parts in zip(*truth, strict=True))),
    )


def grid_locations(height: int, width: int, stride: int, device: torch.device) -> Tensor:
    """Pixels (height * width, 2) of a feature map's locations, row by row."""
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    return (torch.stack([x, y], dim=-1) * stride).float().flatten(0, 1)


def sides_from(locations: Tensor, boxes: Tensor) -> Tensor:
    """Distances (A, n, 4) from locations (A, 2) to the left, top, right and bottom of boxes (n, 4)."""
    points = locations.unsqueeze(1)
    return torch.cat([points - boxes[:, :2], boxes[:, 2:] - points], dim=-1)


def centerness(sides: Tensor) -> Tensor:
    """(P,) from distances (P, 4), all positive: the geometric mean of the two ratios of opposite sides."""
    horizontal, vertical = sides[:, [0, 2]], sides[:, [1, 3]]
    ratios = horizontal.amin(1) / horizontal.amax(1) * (vertical.amin(1) / vertical.amax(1))
    return ratios.sqrt()


def _smallest_object(
    locations: Tensor, distances: Tensor, boxes: Tensor, radius: float, size_range: tuple[float, float]
) -> Tensor:
    """(A,) index of the object that each location learns, -1 for none."""
    if len(boxes) == 0:
        return torch.full((len(locations),), -1, device=locations.device)
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    low = torch.maximum(centers - radius, boxes[:, :2])
    high = torch.minimum(centers + radius, boxes[:, 2:])
    inside = sides_from(locations, torch.cat([low, high], dim=1)).amin(-1) > 0
    farthest = distances.amax(-1)
    fits = (farthest >= size_range[0]) & (farthest <= size_range[1])
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    area, index = torch.where(inside & fits, areas, torch.inf).min(dim=1)
    return index.masked_fill(area.isinf(), -1)


def _pick(distances: Tensor, index: Tensor) -> Tensor:
    """(A, 4) distances to the object of each location; anything where it has none."""
    if distances.shape[1] == 0:
        return distances.new_zeros(len(index), 4)
    return distances[torch.arange(len(index), device=index.device), index.clamp(min=0)]


def _image_of_places(shapes: Sequence[tuple[int, int]], images: int, device: torch.device) -> Tensor:
    """Image of every location, in the order of `places`."""
    per_level = [torch.arange(images, device=device).repeat_interleave(height * width) for height, width in shapes]
    return torch.cat(per_level)
