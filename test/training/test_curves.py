"""Reading what a training run wrote, and its picture."""

import cv2
import numpy as np
import pytest

from bevformer_ros.training.curves import draw_curves, read_metrics

HEADER = "round,seconds,bev_classes,bev_boxes"


def write(path, *rows, header=HEADER):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_a_run_without_rounds(tmp_path):
    with pytest.raises(ValueError, match=r"m\.csv holds no rounds"):
        read_metrics(write(tmp_path / "m.csv"))


def test_rounds_that_were_repeated_after_an_interruption_count_once(tmp_path):
    metrics = read_metrics(write(tmp_path / "m.csv", "1,5,3,9", "2,7,2,9", "3,7,2,9", "2,6,1,8", "3,4,1,7"))
    assert {name: values.tolist() for name, values in metrics.items()} == {
        "round": [1, 2, 3],
        "seconds": [5, 6, 4],
        "bev_classes": [3, 1, 1],
        "bev_boxes": [9, 8, 7],
    }


def test_held_out_scores_have_a_panel_of_their_own(tmp_path):
    losses = write(tmp_path / "losses.csv", "1,1,4,9", "2,1,2,5")
    scored = write(tmp_path / "scored.csv", "1,1,4,9,nan", "2,1,2,5,0.25", header=f"{HEADER},held_out_mAP")
    draw_curves(tmp_path / "two.png", {"losses": [losses]})
    draw_curves(tmp_path / "three.png", {"losses": [losses], "scored": [scored]})
    two, three = (cv2.imread(str(tmp_path / name)) for name in ("two.png", "three.png"))
    assert three.shape[1] == pytest.approx(1.5 * two.shape[1], rel=0.01)


def test_a_picture_of_runs_with_different_losses_and_lengths(tmp_path):
    bev = [write(tmp_path / f"{count}.csv", *(f"{n},1,{9 / n},1" for n in range(1, count))) for count in (5, 9)]
    other = write(tmp_path / "p.csv", "1,1,4", "2,1,2", header="round,seconds,perspective_classes")
    draw_curves(tmp_path / "nothing.png", {})
    draw_curves(tmp_path / "curves.png", {"bev": bev, "perspective": [other]})
    empty, drawn = (cv2.imread(str(tmp_path / name)) for name in ("nothing.png", "curves.png"))
    half = drawn.shape[1] // 2
    for side in (np.s_[:, :half], np.s_[:, half:]):
        assert (empty[side] != drawn[side]).any()
