"""From what the network computed, back on the host, to Detections3D; whatever ran the network."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bevformer_ros.taxonomy import ATTRIBUTE_NAMES, CLASSES, NO_ATTRIBUTE
from bevformer_ros.types import Detections3D, NotFiniteError

# (classes, attributes + 1): the last column, reached by NO_ATTRIBUTE = -1, is always allowed.
_CAN_CARRY = np.array([[name in entry.attributes for name in ATTRIBUTE_NAMES] + [True] for entry in CLASSES])


class HostBoxes(NamedTuple):
    """What the second half of the forward pass gives of one frame: model.box_coding.DecodedBoxes, and from_proposal
    (Q,), for each of the decoder's queries. The names are those of the outputs of an exported `detect`."""

    centers: NDArray
    sizes: NDArray
    yaws: NDArray
    velocities: NDArray
    scores: NDArray
    labels: NDArray
    query: NDArray
    valid: NDArray
    from_proposal: NDArray


class HostProposals(NamedTuple):
    """As model.proposals.Proposals."""

    centers: NDArray
    sizes: NDArray
    yaws: NDArray
    velocities: NDArray
    scores: NDArray
    labels: NDArray
    attributes: NDArray
    cameras: NDArray
    valid: NDArray


def detections_from(boxes: HostBoxes, proposals: HostProposals | None, stamp_ns: int) -> Detections3D:
    """The boxes that pass the score threshold, best first. Raises NotFiniteError where the network computed NaN.

    A box whose query was a proposal takes over the proposal's attribute where its class can carry it.
    """
    centers, sizes, yaws, velocities = (values[0].astype(np.float64) for values in boxes[:4])
    labels, query = boxes.labels[0].astype(np.int64), boxes.query[0].astype(np.int64)
    from_proposal = boxes.from_proposal[query]
    attributes = np.full(len(labels), NO_ATTRIBUTE, np.int64)
    if proposals is not None and from_proposal.any():
        learned = len(boxes.from_proposal) - proposals.scores.shape[1]
        carried = proposals.attributes[0].astype(np.int64)[query[from_proposal] - learned]
        attributes[from_proposal] = np.where(_CAN_CARRY[labels[from_proposal], carried], carried, NO_ATTRIBUTE)
    scores = boxes.scores[0].astype(np.float64)
    if np.isnan(np.column_stack([scores, centers, sizes, yaws, velocities])).any():
        raise NotFiniteError("the network's boxes hold NaN")
    usable = boxes.valid[0] & _possible(centers, sizes, yaws, velocities)
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


def _as_detections(proposals: HostProposals, stamp_ns: int) -> Detections3D:
    centers, sizes, yaws, velocities = (values[0].astype(np.float64) for values in proposals[:4])
    usable = proposals.valid[0] & _possible(centers, sizes, yaws, velocities)
    return Detections3D(
        stamp_ns=stamp_ns,
        centers=centers[usable],
        sizes=sizes[usable],
        yaws=yaws[usable],
        velocities=velocities[usable],
        scores=proposals.scores[0].astype(np.float64)[usable],
        labels=proposals.labels[0].astype(np.int64)[usable],
        attributes=proposals.attributes[0].astype(np.int64)[usable],
        from_proposal=np.ones(usable.sum(), np.bool_),
    )


def _possible(centers: NDArray, sizes: NDArray, yaws: NDArray, velocities: NDArray) -> NDArray[np.bool_]:
    """Boxes (n,) that are finite and have a size; bad weights can give others."""
    finite = np.isfinite(np.column_stack([centers, sizes, yaws, velocities])).all(axis=1)
    return finite & (sizes > 0).all(axis=1)
