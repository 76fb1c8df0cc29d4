"""Ground truth of the golden cases in our layout."""

from __future__ import annotations

import golden_cases
import torch
from torch import Tensor

from bevformer_ros.model.box_coding import official_to_boxes
from bevformer_ros.model.perspective_boxes import matrix_from_quaternion
from bevformer_ros.training.bev_loss import BevTruth
from bevformer_ros.training.perspective_targets import NO_ATTRIBUTE, PerspectiveTruth

_OFFICIAL_NO_ATTRIBUTE = 3


def bev_truth(boxes: Tensor, labels: Tensor, velocity_is_nan: Tensor | None = None) -> BevTruth:
    """From official boxes (n, 9) with z at the bottom."""
    boxes = boxes.clone()
    boxes[:, 2] += boxes[:, 5] / 2
    if velocity_is_nan is not None:
        boxes[velocity_is_nan.bool(), 7:] = torch.nan
    return BevTruth(official_to_boxes(boxes), labels)


def perspective_truth(tensors: dict[str, Tensor], prefix: str) -> PerspectiveTruth:
    """From the annotations of one image: official boxes are quaternion, centre, width length height."""
    annotations = golden_cases.part(tensors, prefix)
    quaternions, centers, sizes = annotations["bbox3d_wxyz_xyz_wlh"].split([4, 3, 3], dim=1)
    speeds = annotations["speed"]
    return PerspectiveTruth(
        boxes2d=annotations["bbox_xyxy"].float(),
        labels=annotations["category_id"],
        centers=centers.float(),
        sizes=sizes[:, [1, 0, 2]].float(),
        rotations=matrix_from_quaternion(quaternions / quaternions.norm(dim=1, keepdim=True)).float(),
        attributes=official_attributes(annotations["attribute_id"]),
        speeds=speeds.masked_fill(annotations["speed_is_nan"].bool(), torch.nan),
    )


def official_attributes(attributes: Tensor) -> Tensor:
    """Official attribute indices (n,) in our numbering."""
    return attributes.masked_fill(attributes == _OFFICIAL_NO_ATTRIBUTE, NO_ATTRIBUTE)
