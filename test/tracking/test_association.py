from __future__ import annotations

import numpy as np
import pytest

from bevformer_ros.taxonomy import CLASS_ID, CLASS_NAMES
from bevformer_ros.tracking.association import associate

CAR, PEDESTRIAN = CLASS_ID["car"], CLASS_ID["pedestrian"]
GATES = np.full(len(CLASS_NAMES), 4.0)


@pytest.mark.parametrize(
    ("tracks", "track_labels", "boxes", "box_labels", "expected"),
    [
        pytest.param([], [], [], [], [], id="nothing"),
        pytest.param([0.0], [CAR], [], [], [], id="no boxes"),
        pytest.param([], [], [0.0], [CAR], [], id="no tracks"),
        pytest.param([0.0], [CAR], [3.9], [CAR], [(0, 0)], id="within the gate"),
        pytest.param([0.0], [CAR], [4.0], [CAR], [], id="on the gate"),
        pytest.param([0.0], [CAR], [0.0], [PEDESTRIAN], [], id="another class"),
        pytest.param(
            [0.0, 3.0], [CAR, CAR], [2.0, 4.0], [CAR, CAR], [(0, 0), (1, 1)], id="two pairs beat a nearer one"
        ),
        pytest.param([0.0, 9.0], [CAR, CAR], [9.5, 0.5], [CAR, CAR], [(0, 1), (1, 0)], id="each to its own"),
        pytest.param([0.0, 0.0], [CAR, PEDESTRIAN], [1.0, 2.0], [PEDESTRIAN, CAR], [(0, 1), (1, 0)], id="by class"),
    ],
)
def test_pairs_along_a_line(tracks, track_labels, boxes, box_labels, expected):
    def on_a_line(values):
        return np.column_stack([np.array(values, float), np.zeros(len(values))])

    labels = np.array(track_labels, np.int64), np.array(box_labels, np.int64)
    rows, columns = associate(on_a_line(tracks), labels[0], on_a_line(boxes), labels[1], GATES)
    assert sorted(zip(rows.tolist(), columns.tolist(), strict=True)) == expected
