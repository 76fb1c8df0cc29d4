"""Which box continues which track."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

Rows = NDArray[np.int64]


def associate(
    expected: NDArray[np.float64],
    track_labels: Rows,
    positions: NDArray[np.float64],
    box_labels: Rows,
    gates: NDArray[np.float64],
) -> tuple[Rows, Rows]:
    """Rows of tracks and of boxes that belong together: the pairs of one class, nearer than its gate, whose distances
    in gates sum up to least, where a pair that is not made counts as one gate.

    expected, positions: (t, 2) and (d, 2) over ground. gates: (classes,) in metres.
    """
    found: list[tuple[Rows, Rows]] = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
    for label in np.intersect1d(track_labels, box_labels):
        tracks, boxes = np.flatnonzero(track_labels == label), np.flatnonzero(box_labels == label)
        costs = np.minimum(cdist(expected[tracks], positions[boxes]) / gates[label], 1.0)
        rows, columns = linear_sum_assignment(costs)
        near = costs[rows, columns] < 1.0
        found.append((tracks[rows[near]], boxes[columns[near]]))
    tracks, boxes = (np.concatenate(rows) for rows in zip(*found, strict=True))
    return tracks, boxes
