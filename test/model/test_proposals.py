"""Perspective boxes into the BEV frame, and one set of them."""

from __future__ import annotations

import json
from dataclasses import replace

import ideal_head
import numpy as np
import pytest
import torch
from support import REPOSITORY
from torch import Tensor

from bevformer_ros import geometry
from bevformer_ros.model.config import ModelConfig, PerspectiveHeadConfig, ProposalConfig
from bevformer_ros.model.perspective_head import PerspectiveLevel
from bevformer_ros.model.proposals import ProposalMaker, Proposals
from bevformer_ros.taxonomy import CLASS_ID
from bevformer_ros.types import Detections3D

FRAME = REPOSITORY.parent / "shared" / "data" / "nuscenes_frame" / "frame.json"
WIDE = (-100.0, -100.0, -10.0, 100.0, 100.0, 10.0)
HEAD = PerspectiveHeadConfig()
DEFAULT = ProposalConfig()


def boxes_of(entries: list[tuple[str, tuple[float, float], float]]) -> Detections3D:
    """Boxes of canonical size, 4 m/s along their heading, from (class, (x, y), yaw)."""
    labels = np.array([CLASS_ID[name] for name, _, _ in entries], dtype=np.int64)
    yaws = np.array([yaw for _, _, yaw in entries], dtype=np.float64)
    count = len(entries)
    return Detections3D(
        stamp_ns=0,
        centers=np.array([(x, y, -0.5) for _, (x, y), _ in entries], dtype=np.float64).reshape(count, 3),
        sizes=np.array([HEAD.canonical_sizes[label] for label in labels], dtype=np.float64).reshape(count, 3),
        yaws=yaws,
        velocities=4.0 * np.stack([np.cos(yaws), np.sin(yaws)], axis=-1).reshape(count, 2),
        scores=np.ones(count),
        labels=labels,
        attributes=np.zeros(count, np.int64),
        from_proposal=np.zeros(count, np.bool_),
    )


def facing(angle: float) -> ideal_head.View:
    """A camera at the BEV origin that looks along `angle` (radians from +y, clockwise)."""
    forward = np.array([np.sin(angle), np.cos(angle), 0.0])
    right = np.array([np.cos(angle), -np.sin(angle), 0.0])
    camera_from_bev = np.eye(4)
    camera_from_bev[:3, :3] = np.stack([right, [0.0, 0.0, -1.0], forward])
    return ideal_head.View(np.array([[500.0, 0, 400], [0, 500, 200], [0, 0, 1]]), camera_from_bev, (800, 416))


def propose(
    levels: list[PerspectiveLevel],
    views: list[ideal_head.View],
    config: ProposalConfig = DEFAULT,
    detection_range: tuple[float, ...] = WIDE,
    camera_valid: Tensor | None = None,
    seen: Tensor | None = None,
) -> Proposals:
    maker = ProposalMaker(HEAD, config, detection_range)
    intrinsics = torch.tensor(np.stack([view.intrinsics for view in views]), dtype=torch.float32)
    camera_from_bev = torch.tensor(np.stack([view.camera_from_bev for view in views]), dtype=torch.float32)
    return maker(levels, intrinsics[None], camera_from_bev[None], camera_valid, seen)


def kept(proposals: Proposals) -> dict[str, np.ndarray]:
    return {name: values[0][proposals.valid[0]].numpy() for name, values in proposals._asdict().items()}


TWO_CAMERAS = [facing(-0.3), facing(0.3)]
SCENES = {
    "nothing": ([], 0),
    "one car that both cameras see": ([("car", (0.5, 20.0), 0.4)], 1),
    "two cars side by side": ([("car", (-1.2, 20.0), 1.6), ("car", (1.2, 20.0), 1.6)], 2),
    "a pedestrian inside a truck": ([("pedestrian", (0.0, 20.0), 0.0), ("truck", (0.0, 20.0), 1.0)], 2),
    "barriers back to back": ([("barrier", (0.0, 12.0), 3.1), ("barrier", (0.75, 12.0), 3.1)], 2),
}


@pytest.mark.parametrize(("entries", "count"), SCENES.values(), ids=SCENES.keys())
def test_each_object_comes_back_once(entries: list, count: int) -> None:
    boxes = boxes_of(entries)
    proposals = kept(propose(ideal_head.ideal_outputs(boxes, TWO_CAMERAS, HEAD)[0], TWO_CAMERAS))

    assert len(proposals["scores"]) == count
    assert sorted(proposals["labels"]) == sorted(boxes.labels)
    for row, label in enumerate(boxes.labels):
        distances = np.linalg.norm(proposals["centers"] - boxes.centers[row], axis=-1) + (proposals["labels"] != label)
        match = distances.argmin()
        assert distances[match] < 1e-3
        assert proposals["sizes"][match] == pytest.approx(boxes.sizes[row], rel=1e-4)
        assert geometry.wrap_angle(proposals["yaws"][match] - boxes.yaws[row]) == pytest.approx(0, abs=1e-4)
        assert proposals["velocities"][match] == pytest.approx(boxes.velocities[row], abs=1e-3)


def test_scores_descend_and_empty_slots_hold_unit_boxes() -> None:
    boxes = boxes_of([("car", (0.0, 15.0), 0.0), ("bus", (0.0, 30.0), 0.5)])
    proposals = propose(ideal_head.ideal_outputs(boxes, TWO_CAMERAS, HEAD)[0], TWO_CAMERAS)

    assert proposals.valid[0].tolist() == [True, True] + [False] * 98
    assert (proposals.scores[0].diff() <= 0).all()
    empty = ~proposals.valid[0]
    assert (proposals.sizes[0, empty] == 1).all()
    assert (proposals.centers[0, empty] == 0).all()
    assert (proposals.attributes[0, empty] == -1).all()


def test_scaled_proposals_are_those_of_a_larger_world() -> None:
    boxes = boxes_of([("car", (3.0, 15.0), 0.4)])
    proposals = propose(ideal_head.ideal_outputs(boxes, TWO_CAMERAS, HEAD)[0], TWO_CAMERAS)
    plain, larger = kept(proposals), kept(proposals.scaled(torch.tensor([1.1])))
    for name in ("centers", "sizes", "velocities"):
        assert larger[name] == pytest.approx(1.1 * plain[name])
    for name in ("yaws", "scores", "labels"):
        assert np.array_equal(larger[name], plain[name])


SELECTIONS = {
    "cap": (ProposalConfig(count=1), WIDE, None, 1),
    "score": (ProposalConfig(minimum_score=1.0), WIDE, None, 0),
    "range": (DEFAULT, (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0), None, 1),
    "one camera missing": (DEFAULT, WIDE, [[False, True]], 2),
    "both cameras missing": (DEFAULT, WIDE, [[False, False]], 0),
    "all": (DEFAULT, WIDE, [[True, True]], 2),
}


@pytest.mark.parametrize(("config", "detection_range", "valid", "count"), SELECTIONS.values(), ids=SELECTIONS.keys())
def test_selection(config: ProposalConfig, detection_range: tuple, valid: list | None, count: int) -> None:
    boxes = boxes_of([("car", (0.0, 15.0), 0.0), ("bus", (0.0, 60.0), 0.5)])
    levels, _ = ideal_head.ideal_outputs(boxes, TWO_CAMERAS, HEAD)
    camera_valid = None if valid is None else torch.tensor(valid)

    proposals = kept(propose(levels, TWO_CAMERAS, config, detection_range, camera_valid))

    assert len(proposals["scores"]) == count
    if valid == [[False, True]]:
        assert (proposals["cameras"] == 1).all()


@pytest.mark.parametrize(("masked", "count"), [((), 2), ((0,), 2), ((0, 1), 1)])
def test_what_a_mask_hides_in_every_camera_is_not_proposed(masked: tuple[int, ...], count: int) -> None:
    """A car with a mask over its 2D box, and a bus beside it."""
    boxes = boxes_of([("car", (0.0, 15.0), 0.0), ("bus", (20.0, 60.0), 0.5)])
    levels, views = ideal_head.ideal_outputs(boxes, TWO_CAMERAS, HEAD)
    seen = torch.ones(1, 2, 416, 800, dtype=torch.bool)
    for camera in masked:
        (car,) = (entry.box2d for entry in views[camera] if entry.row == 0)
        left, top, right, bottom = car.astype(int)
        seen[0, camera, top : bottom + 1, left : right + 1] = False
    proposals = kept(propose(levels, TWO_CAMERAS, seen=seen))
    assert len(proposals["scores"]) == count
    assert CLASS_ID["bus"] in proposals["labels"]


def seen_at_two_depths() -> list[PerspectiveLevel]:
    """A car, of which the second camera misjudges depth by 1.5 m, less than half a car."""
    true, misjudged = boxes_of([("car", (0.0, 20.0), 1.57)]), boxes_of([("car", (0.0, 21.5), 1.57)])
    first, _ = ideal_head.ideal_outputs(true, TWO_CAMERAS[:1], HEAD)
    second, _ = ideal_head.ideal_outputs(misjudged, TWO_CAMERAS[1:], HEAD)
    return [
        PerspectiveLevel(*(torch.cat(pair) for pair in zip(*both, strict=True)))
        for both in zip(first, second, strict=True)
    ]


@pytest.mark.parametrize("config", [DEFAULT, ProposalConfig(bev_nms_iou=0.3)])
def test_two_depths_of_one_car_give_one_proposal(config: ProposalConfig) -> None:
    assert len(kept(propose(seen_at_two_depths(), TWO_CAMERAS, config))["scores"]) == 1


def test_side_by_side_is_not_the_same_by_overlap_either() -> None:
    boxes = boxes_of([("car", (-1.2, 20.0), 1.6), ("car", (1.2, 20.0), 1.6)])
    levels, _ = ideal_head.ideal_outputs(boxes, TWO_CAMERAS, HEAD)
    assert len(kept(propose(levels, TWO_CAMERAS, ProposalConfig(bev_nms_iou=0.3)))["scores"]) == 2


def test_merged_boxes_meet_in_the_middle() -> None:
    merged = kept(propose(seen_at_two_depths(), TWO_CAMERAS, ProposalConfig(merge_margin=0.2)))
    assert merged["centers"][:, 1] == pytest.approx([20.75], abs=0.05)


def test_merging_nothing_proposes_nothing() -> None:
    levels, _ = ideal_head.ideal_outputs(boxes_of([]), TWO_CAMERAS, HEAD)
    assert len(kept(propose(levels, TWO_CAMERAS, ProposalConfig(merge_margin=0.2)))["scores"]) == 0


@pytest.mark.parametrize(
    ("apart", "margin", "count"), [(0.35, 0.2, 1), (0.45, 0.2, 2), (0.35, 0.1, 2), (0.25, 0.1, 1), (0.45, 0.3, 1)]
)
def test_boxes_of_two_cameras_are_one_within_the_margin(apart: float, margin: float, count: int) -> None:
    """Two views of a cone, 0.40 m wide: one if the centre of one lies in the other's footprint grown by the margin."""
    near, far = (boxes_of([("traffic_cone", (0.0, y), 0.0)]) for y in (10.0, 10.0 + apart))
    views = zip(
        ideal_head.ideal_outputs(near, TWO_CAMERAS[:1], HEAD)[0],
        ideal_head.ideal_outputs(far, TWO_CAMERAS[1:], HEAD)[0],
        strict=True,
    )
    levels = [PerspectiveLevel(*(torch.cat(pair) for pair in zip(*both, strict=True))) for both in views]
    proposals = kept(propose(levels, TWO_CAMERAS, replace(DEFAULT, bev_nms_margin=margin)))
    assert len(proposals["scores"]) == count


@pytest.fixture(scope="module")
def keyframe() -> tuple[Detections3D, list[ideal_head.View]]:
    """Ground truth of the real keyframe, and its cameras as the released models' input sees them."""
    if not FRAME.exists():
        pytest.skip(f"no {FRAME}")
    frame = json.loads(FRAME.read_text(encoding="utf-8"))
    objects = frame["objects"]
    velocities = np.array([entry["velocity"] for entry in objects], dtype=np.float64)
    boxes = Detections3D(
        stamp_ns=frame["timestamp_ns"],
        centers=np.array([entry["center"] for entry in objects]),
        sizes=np.array([entry["size_lwh"] for entry in objects]),
        yaws=np.array([entry["yaw"] for entry in objects]),
        velocities=np.nan_to_num(velocities),
        scores=np.ones(len(objects)),
        labels=np.array([CLASS_ID[entry["class"]] for entry in objects], dtype=np.int64),
        attributes=np.full(len(objects), -1, np.int64),
        from_proposal=np.zeros(len(objects), np.bool_),
    )
    config = ModelConfig(name="released")
    _, top, _, _ = config.image.crop
    views = []
    for name in config.cameras:
        camera = frame["cameras"][name]
        intrinsics = np.array(camera["intrinsics"])
        intrinsics[1, 2] -= top
        views.append(ideal_head.View(intrinsics, np.array(camera["lidar_to_camera"]), config.image.padded_size))
    return boxes, views


@pytest.mark.parametrize("detection_range", [WIDE, ModelConfig(name="released").bev.range], ids=["wide", "released"])
def test_real_keyframe_comes_back(keyframe: tuple, detection_range: tuple[float, ...]) -> None:
    """Every object that a camera sees, within 5 cm and 1 degree, and none twice."""
    boxes, views = keyframe
    levels, seen = ideal_head.ideal_outputs(boxes, views, HEAD)
    low, high = np.array(detection_range).reshape(2, 3)
    inside = ((boxes.centers >= low) & (boxes.centers <= high)).all(axis=-1)
    visible = sorted({entry.row for entries in seen for entry in entries if inside[entry.row]})
    assert len(visible) > 30

    proposals = kept(propose(levels, views, detection_range=detection_range))

    matched = []
    for row in visible:
        close = np.linalg.norm(proposals["centers"] - boxes.centers[row], axis=-1) < 0.05
        (match,) = np.flatnonzero(close & (proposals["labels"] == boxes.labels[row]))
        matched.append(match)
        assert abs(geometry.wrap_angle(proposals["yaws"][match] - boxes.yaws[row])) < np.deg2rad(1)
        assert proposals["sizes"][match] == pytest.approx(boxes.sizes[row], abs=0.01)
        assert np.linalg.norm(proposals["velocities"][match]) == pytest.approx(
            np.linalg.norm(boxes.velocities[row]), abs=0.01
        )
    assert sorted(matched) == list(range(len(proposals["scores"])))


def test_a_missing_camera_may_have_no_calibration() -> None:
    views = [TWO_CAMERAS[0]._replace(intrinsics=np.zeros((3, 3)), camera_from_bev=np.zeros((4, 4))), TWO_CAMERAS[1]]
    levels, _ = ideal_head.ideal_outputs(boxes_of([("car", (0.0, 15.0), 0.0)]), TWO_CAMERAS, HEAD)
    proposals = propose(levels, views, camera_valid=torch.tensor([[False, True]]))
    assert proposals.valid.sum() == 1
    assert all(values.isfinite().all() for values in proposals)


def test_dd3ds_image_threshold_loses_barriers_in_a_row(keyframe: tuple) -> None:
    """Why the default is higher: 2D boxes of neighbours overlap by 0.76 and 0.78 in the front image."""
    boxes, views = keyframe
    levels, seen = ideal_head.ideal_outputs(boxes, views, HEAD)
    visible = {entry.row for entries in seen for entry in entries}
    assert len(visible) == len(boxes) == 68

    proposals = kept(propose(levels, views, replace(DEFAULT, image_nms_iou=0.75)))

    found = {
        row for row in visible if (np.linalg.norm(proposals["centers"] - boxes.centers[row], axis=-1) < 0.05).any()
    }
    assert sorted(boxes.labels[list(visible - found)]) == [CLASS_ID["barrier"]] * 2


def test_what_an_ideal_head_finds_without_the_finest_level(keyframe: tuple) -> None:
    """Levels share the objects as in the official training: at this image size most fall to stride 8."""
    boxes, views = keyframe
    levels, _ = ideal_head.ideal_outputs(boxes, views, HEAD)
    in_range = ModelConfig(name="released").bev.range

    everything = kept(propose(levels, views, detection_range=in_range))
    coarse = kept(propose(levels[1:], views, replace(DEFAULT, first_level=1), in_range))

    assert (len(everything["scores"]), len(coarse["scores"])) == (51, 13)
    assert np.linalg.norm(coarse["centers"], axis=-1).max() < 22


def test_a_collapsed_box_keeps_a_size() -> None:
    """tanh reaches -1 in float32, which is no size, and whose logarithm would poison the whole decoder."""
    levels, _ = ideal_head.ideal_outputs(boxes_of([("car", (0.0, 15.0), 0.0)]), TWO_CAMERAS, HEAD)
    proposals = kept(propose([level._replace(sizes=level.sizes - 100) for level in levels], TWO_CAMERAS))
    assert len(proposals["sizes"]) > 0
    assert proposals["sizes"].min() > 0
