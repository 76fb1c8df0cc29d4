"""Warping with known answers, what recall hands to the model, and the ring's memory."""

import numpy as np
import pytest
import torch

from bevformer_ros import geometry
from bevformer_ros.inference.bev_buffer import BevBuffer, EncodedFrame, warp_bev
from bevformer_ros.inference.frame_history import planar_motions
from bevformer_ros.inference.history import HistoryConfig
from bevformer_ros.model.config import BevGridConfig, TemporalConfig
from bevformer_ros.types import CameraImage, SurroundFrame

MS = 1_000_000
CELL = 0.5
GRID = BevGridConfig(rows=40, columns=32, range=(-8.0, -10.0, -5.0, 8.0, 10.0, 3.0))
SQUARE = BevGridConfig(rows=64, columns=64, range=(-16.0, -16.0, -5.0, 16.0, 16.0, 3.0))


def pose(x=0.0, y=0.0, yaw=0.0):
    return geometry.transform_from_rpy((x, y, 0.0), (0.0, 0.0, yaw))


def noise(grid, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, grid.rows, grid.columns, channels, generator=generator)


def warped(bev, past_from_now, grid):
    """(1, H, W, C) -> (1, H, W, C)."""
    motions = torch.from_numpy(planar_motions(past_from_now[None], grid)).float()
    return warp_bev(bev.flatten(1, 2), motions, grid).view_as(bev)


def test_no_history_is_warped_to_no_history():
    assert warp_bev(torch.zeros(0, 40 * 32, 3), torch.zeros(0, 2, 3), GRID).shape == (0, 40 * 32, 3)


def test_standing_still_changes_nothing():
    bev = noise(GRID)
    torch.testing.assert_close(warped(bev, np.eye(4), GRID), bev, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("right", "forward"), [(0, 3), (2, 0), (-2, 5), (0, -4)])
def test_driving_whole_cells_shifts_by_whole_cells(right, forward):
    """What was seen comes nearer: the cell (row, column) now was (row + forward, column + right)."""
    bev = noise(GRID)
    expected = torch.zeros_like(bev)
    for row in range(GRID.rows):
        for column in range(GRID.columns):
            if 0 <= row + forward < GRID.rows and 0 <= column + right < GRID.columns:
                expected[0, row, column] = bev[0, row + forward, column + right]
    actual = warped(bev, pose(right * CELL, forward * CELL), GRID)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_quarter_turns_permute_the_cells(quarters):
    """Turning left by 90 degrees: the cell ahead (+y) now was the cell to the left (-x)."""
    bev = noise(SQUARE)
    actual = warped(bev, pose(yaw=quarters * np.pi / 2), SQUARE)
    # now (x, y) was at (-y, x): value[row, column] = past[column, -1 - row] for one quarter.
    expected = bev
    for _ in range(quarters):
        expected = expected.flip(2).transpose(1, 2)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)
    ahead = torch.zeros_like(bev)
    ahead[0, 32, 10] = 1.0  # half a cell off the x axis, 10.75 m to the left
    if quarters == 1:
        assert warped(ahead, pose(yaw=np.pi / 2), SQUARE)[0, 53, 32].min() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("grid", [SQUARE, GRID], ids=["square", "oblong"])
def test_two_motions_compose(grid):
    """One after the other, at once, and the analytic answer: waves several metres long."""

    def waves(past_from_now):
        x = grid.range[0] + (np.arange(grid.columns) + 0.5) * CELL
        y = grid.range[1] + (np.arange(grid.rows) + 0.5) * CELL
        x, y = np.meshgrid(x, y)
        x, y, _ = np.moveaxis(geometry.apply(past_from_now, np.stack([x, y, np.zeros_like(x)], axis=-1)), -1, 0)
        return torch.from_numpy(np.sin(0.5 * x + 0.1 * y) + np.cos(0.4 * y)).float().view(1, grid.rows, grid.columns, 1)

    first, second = pose(0.7, 1.3, 0.2), pose(-0.4, 0.9, -0.35)
    past = waves(np.eye(4))
    one_after_the_other = warped(warped(past, first, grid), second, grid)
    at_once = warped(past, first @ second, grid)
    inner = (slice(None), slice(12, -12), slice(12, -12))
    torch.testing.assert_close(at_once[inner], waves(first @ second)[inner], atol=0.02, rtol=0)
    torch.testing.assert_close(one_after_the_other[inner], waves(first @ second)[inner], atol=0.04, rtol=0)
    assert (waves(second @ first) - waves(first @ second))[inner].abs().max() > 0.2


def test_cells_that_were_out_of_range_are_zero():
    actual = warped(torch.ones(1, GRID.rows, GRID.columns, 1), pose(y=4.0), GRID)[0, ..., 0]
    assert actual[:32].min() == pytest.approx(1.0, abs=1e-4)
    assert actual[32:].abs().max() == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_reduced_precision_keeps_the_grid_exact(dtype):
    bev = noise(GRID).to(dtype)
    actual = warped(bev, pose(y=2.0), GRID)
    assert actual.dtype == dtype
    torch.testing.assert_close(actual[:, :-4], bev[:, 4:], atol=1e-2, rtol=0)


def encoded(stamp_ms, bev, world_from_bev=None, features=None, image_from_bev=None):
    projection = np.eye(4)[None] if image_from_bev is None else image_from_bev
    world_from_bev = np.eye(4) if world_from_bev is None else world_from_bev
    return EncodedFrame(
        stamp_ms * MS, world_from_bev, bev, features, projection, torch.ones(1, len(projection), dtype=torch.bool)
    )


def refuse_to_encode(*_):
    raise AssertionError("warp needs no encoder")


def warping_buffer(frames, grid=SQUARE, **limits):
    return BevBuffer(TemporalConfig(frames=frames, mode="warp"), HistoryConfig(**limits), grid, refuse_to_encode)


def blob(point, grid):
    """(1, H*W, 1) response of a landmark at a point (2,) of the BEV frame, two cells wide."""
    x = grid.range[0] + (np.arange(grid.columns) + 0.5) * CELL
    y = grid.range[1] + (np.arange(grid.rows) + 0.5) * CELL
    squared = (x[None] - point[0]) ** 2 + (y[:, None] - point[1]) ** 2
    return torch.from_numpy(np.exp(-squared / (2 * (2 * CELL) ** 2))).float().view(1, -1, 1)


def centre_of_mass(bev, grid):
    x = grid.range[0] + (np.arange(grid.columns) + 0.5) * CELL
    y = grid.range[1] + (np.arange(grid.rows) + 0.5) * CELL
    weights = bev.view(grid.rows, grid.columns).double().numpy()
    return np.array([(weights * x[None]).sum(), (weights * y[:, None]).sum()]) / weights.sum()


def test_static_landmark_stays_put_while_the_ego_drives_an_s_curve():
    """8 m/s, turning up to 0.6 rad/s one way and the other; every slot shows the landmark where it is now."""
    buffer = warping_buffer((-3, -2, -1, 0))
    landmark = np.array([3.0, 14.0, 0.0])
    position, yaw, worst, slots_checked = np.zeros(2), 0.0, 0.0, 0
    for step in range(40):
        world_from_bev = pose(position[0], position[1], yaw)
        point = geometry.apply(geometry.invert(world_from_bev), landmark)[:2]
        now = encoded(step * 100, blob(point, SQUARE), world_from_bev)
        buffer.store(now)
        recall = buffer.recall(now)
        inside = np.abs(point).max() < 11.0  # beyond, part of the blob is cut off at the border of some frame
        if inside and recall.depth == 3:
            for bev in buffer.align(now.bev, recall.past)[0]:
                worst = max(worst, float(np.linalg.norm(centre_of_mass(bev, SQUARE) - point)))
                slots_checked += 1
        yaw += 0.1 * 0.6 * np.sin(2 * np.pi * step / 30)
        position = position + 0.1 * 8.0 * np.array([-np.sin(yaw), np.cos(yaw)])
    assert slots_checked >= 20
    assert worst < CELL / 2


def test_recall_repeats_the_next_newer_frame_and_the_current_one_at_first():
    buffer = warping_buffer((-2, -1, 0), GRID)

    def frame(stamp_ms, value):
        return encoded(stamp_ms, torch.full((1, GRID.rows * GRID.columns, 1), float(value)))

    def recalled(now):
        buffer.store(now)
        recall = buffer.recall(now)
        return buffer.align(now.bev, recall.past)[0, :, 500, 0].round(decimals=4).tolist(), recall.depth

    assert recalled(frame(0, 1)) == ([1, 1, 1], 0)
    assert recalled(frame(500, 2)) == ([1, 1, 2], 1)
    assert recalled(frame(1000, 3)) == ([1, 2, 3], 2)
    assert recalled(frame(2000, 4)) == ([3, 4, 4], 1)  # 1500 is missing: its slot repeats the current frame


def test_ring_is_allocated_once_and_reused():
    buffer = warping_buffer((-1, 0), GRID, minimum_spacing_s=0.1)
    assert (buffer.capacity, buffer.bytes) == (9, 0)
    bev = torch.ones(1, GRID.rows * GRID.columns, 4)
    addresses = set()
    for step in range(40):
        now = encoded(100 * step, bev * step)
        buffer.store(now)
        recall = buffer.recall(now)
        addresses.add(buffer._ring.data_ptr())
        if step >= 5:
            assert buffer.align(now.bev, recall.past)[0, :, 0, 0].tolist() == pytest.approx([step - 5, step], abs=1e-3)
    assert len(addresses) == 1
    assert buffer.bytes == 9 * GRID.rows * GRID.columns * 4 * 4
    assert len(buffer) == 9


def test_single_frame_model_stores_nothing():
    buffer = warping_buffer((0,), GRID)
    now = encoded(0, torch.ones(1, GRID.rows * GRID.columns, 1))
    buffer.store(now)
    recall = buffer.recall(now)
    assert (len(buffer), buffer.bytes, recall.depth, recall.velocity_scale) == (0, 0, 0, 1.0)
    assert buffer.align(now.bev, recall.past).shape == (1, 1, GRID.rows * GRID.columns, 1)


def test_reencode_projects_the_past_images_from_the_current_frame():
    """The encoder gets the stored features, and a projection that takes today's points through yesterday's camera."""
    calls = []

    def encode(features, image_from_bev, camera_valid):
        calls.append((features, image_from_bev, camera_valid))
        return features.mean() * torch.ones(1, 6, 2)

    temporal = TemporalConfig(frames=(-2, -1, 0), mode="reencode")
    buffer = BevBuffer(temporal, HistoryConfig(), GRID, encode)
    camera = geometry.transform_from_rpy((0.1, 1.5, -0.3), (-1.5, 0.1, 0.0))[None]
    for step in range(3):
        features = torch.full((1, 1, 16, 2), float(step))
        now = encoded(
            500 * step, torch.full((1, 6, 2), float(step)), pose(y=4.0 * step, yaw=0.1 * step), features, camera
        )
        buffer.store(now)
        recall = buffer.recall(now)
    assert buffer.align(now.bev, recall.past)[0, :, 0, 0].tolist() == [0, 1, 2]
    (features, image_from_bev, camera_valid), _ = calls[-2:]
    torch.testing.assert_close(features, torch.zeros(1, 1, 16, 2))
    assert camera_valid.tolist() == [[True]]
    point_world = np.array([2.0, 20.0, 0.5, 1.0])
    point_now = geometry.invert(pose(y=8.0, yaw=0.2)) @ point_world
    np.testing.assert_allclose(image_from_bev[0, 0].numpy() @ point_now, camera[0] @ point_world, atol=1e-4)
    assert buffer.bytes == buffer.capacity * 16 * 2 * 4


def surround(stamp_ms, forward=0.0):
    image = np.zeros((9, 16, 3), np.uint8)
    camera = CameraImage("CAM", stamp_ms * MS, image, np.eye(3), np.eye(4))
    return SurroundFrame(stamp_ms * MS, (camera,), pose(y=forward), "drive")


def test_history_is_dropped_once_and_counted():
    buffer = warping_buffer((-1, 0), GRID)
    bev = torch.ones(1, GRID.rows * GRID.columns, 1)
    for stamp in (0, 100, 200):
        buffer.admit(surround(stamp))
        buffer.store(encoded(stamp, bev))
    assert (len(buffer), buffer.resets) == (3, {})
    assert buffer.break_before(surround(100)) == "backward_time"
    buffer.admit(surround(100))
    assert (len(buffer), buffer.resets) == (0, {"backward_time": 1})
    buffer.admit(surround(200))
    buffer.reset("request")
    buffer.admit(surround(0))
    assert buffer.resets == {"backward_time": 1, "request": 1}


@pytest.mark.parametrize("mode", ["warp", "reencode"])
def test_the_current_frame_is_recalled_with_its_gradient(mode):
    """As training uses it: the past is constant, what the model sees of the present is not."""
    temporal = TemporalConfig(frames=(-2, -1, 0), mode=mode)
    buffer = BevBuffer(temporal, HistoryConfig(), GRID, lambda *_: torch.ones(1, GRID.rows * GRID.columns, 2))
    for step in range(3):
        bev = torch.ones(1, GRID.rows * GRID.columns, 2, requires_grad=True)
        now = encoded(500 * step, bev, features=torch.ones(1, 1, 16, 2))
        recall = buffer.recall(now)
        buffer.align(now.bev, recall.past).sum().backward()
        assert recall.depth == step
        torch.testing.assert_close(bev.grad, torch.full_like(bev, 1.0 if step else 3.0))
        buffer.store(encoded(500 * step, bev.detach(), features=torch.ones(1, 1, 16, 2)))


def test_clearing_keeps_the_memory_and_counts_nothing():
    buffer = warping_buffer((-1, 0), GRID)
    buffer.store(encoded(0, torch.ones(1, GRID.rows * GRID.columns, 1)))
    buffer.clear()
    assert (len(buffer), buffer.resets) == (0, {})
    assert buffer.bytes > 0
