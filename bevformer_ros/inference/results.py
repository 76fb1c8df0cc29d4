"""From the network's tensors to Detections3D: the one place where they come back to the host."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bevformer_ros.inference.stages import DetectedBoxes
from bevformer_ros.model.proposals import Proposals
from bevformer_ros.taxonomy import ATTRIBUTE_NAMES, CLASSES, NO_ATTRIBUTE
from bevformer_ros.types import Detections3D, NotFiniteError

# (classes, attributes + 1): the last column, reached by NO_ATTRIBUTE = -1, is always allowed.
_CAN_CARRY = np.array([[name in entry.attributes for name in ATTRIBUTE_NAMES] + [True] for entry in CLASSES])


def detections_from(detected: DetectedBoxes, proposals: Proposals | None, stamp_ns: int) -> Detections3D:
    """The boxes that pass the score threshold, best first. Raises NotFiniteError where the network computed NaN.

    A box whose query was a proposal takes over the proposal's attribute where its class can carry it.
    """
    decoded = detected.boxes
    centers, sizes, yaws, velocities = (_numpy(values[0], np.float64) for values in decoded.boxes)
    labels, query = _numpy(decoded.labels[0], np.int64), _numpy(decoded.query[0], np.int64)
    from_proposal = _numpy(detected.from_proposal, np.bool_)[query]
    attributes = np.full(len(labels), NO_ATTRIBUTE, np.int64)
    if proposals is not None and from_proposal.any():
        learned = len(detected.from_proposal) - proposals.scores.shape[1]
        carried = _numpy(proposals.attributes[0], np.int64)[query[from_proposal] - learned]
        attributes[from_proposal] = np.where(_CAN_CARRY[labels[from_proposal], carried], carried, NO_ATTRIBUTE)
    scores = _numpy(decoded.scores[0], np.float64)
    if np.isnan(np.column_stack([scores, centers, sizes, yaws, velocities])).any():
        raise NotFiniteError("the network's boxes hold NaN")
    usable = _numpy(decoded.valid[0], np.bool_) & _possible(centers, sizes, yaws, velocities)
    return Detections3D(
        stamp_ns=stamp_ns,
        centers=centers[usable],
        sizes=sizes[usable],
        yaws=yaws[usable],
        velocities=velocities[usable],
        scores=scores[usable],
        labels=labels[usable],
        attributes=attributes[usable],
        from_proposal=from_proposal[usable],
        proposals=None if proposals is None else _as_detections(proposals, stamp_ns),
    )


def _as_detections(proposals: Proposals, stamp_ns: int) -> Detections3D:
    floats = (proposals.centers, proposals.sizes, proposals.yaws, proposals.velocities)
    centers, sizes, yaws, velocities = (_numpy(values[0], np.float64) for values in floats)
    usable = _numpy(proposals.valid[0], np.bool_) & _possible(centers, sizes, yaws, velocities)
    return Detections3D(
        stamp_ns=stamp_ns,
        centers=centers[usable],
        sizes=sizes[usable],
        yaws=yaws[usable],
        velocities=velocities[usable],
        scores=_numpy(proposals.scores[0], np.float64)[usable],
        labels=_numpy(proposals.labels[0], np.int64)[usable],
        attributes=_numpy(proposals.attributes[0], np.int64)[usable],
        from_proposal=np.ones(usable.sum(), np.bool_),
    )


def _possible(centers: NDArray, sizes: NDArray, yaws: NDArray, velocities: NDArray) -> NDArray[np.bool_]:
    """Boxes (n,) that are finite and have a size; bad weights can give others."""
    finite = np.isfinite(np.column_stack([centers, sizes, yaws, velocities])).all(axis=1)
    return finite & (sizes > 0).all(axis=1)


def _numpy(values: Tensor, kind: type) -> NDArray:
    return values.cpu().numpy().astype(kind)
