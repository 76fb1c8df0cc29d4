"""Which frames are picked, and when the past is dropped: no tensors, no images worth the name."""

from dataclasses import replace

import numpy as np
import pytest

from bevformer_ros import geometry
from bevformer_ros.inference.history import FrameRecord, HistoryConfig, Slots, reset_reason
from bevformer_ros.lens import Lens
from bevformer_ros.types import CameraImage, SurroundFrame

MS = 1_000_000
T2 = Slots.at_interval((-1, 0), 0.5, 0.25)
T4 = Slots.at_interval((-3, -2, -1, 0), 0.5, 0.25)
T8 = Slots.at_interval(range(-7, 1), 0.5, 0.25)
BOTH_WAYS = Slots.at_interval((-2, -1, 0, 1), 0.5, 0.25)


def stored(stamps_ms, spacing_ms=75):
    """The stamps that a buffer would have kept of a stream: those at least spacing_ms after the last kept one."""
    kept = []
    for stamp in stamps_ms:
        if not kept or stamp - kept[-1] >= spacing_ms:
            kept.append(stamp)
    return kept


def picked(slots, now_ms, stamps_ms):
    """Stamps in milliseconds that fill the slots, None for an empty one (and for the current frame's own)."""
    nearest = slots.nearest(now_ms * MS, [stamp * MS for stamp in stamps_ms])
    return [None if index is None else stamps_ms[index] for index in nearest]


@pytest.mark.parametrize(
    ("slots", "now", "stamps", "expected"),
    [
        (T4, 1000, [], [None, None, None, None]),
        (T4, 1000, [900, 950], [None, None, None, None]),
        (T4, 1000, [500], [None, None, 500, None]),
        (T4, 1000, [375, 625], [None, None, 625, None]),  # both just within the tolerance: the newer
        (T4, 1000, [374, 626], [None, None, None, None]),
        (T4, 2000, [490, 1040, 1480, 1520], [490, 1040, 1520, None]),
        (BOTH_WAYS, 1000, [0, 480, 1000, 1510], [0, 480, None, 1510]),
    ],
)
def test_nearest_stamp_within_tolerance_fills_a_slot(slots, now, stamps, expected):
    assert picked(slots, now, stamps) == expected


def test_stream_at_10_hz():
    stamps = stored(range(0, 4000, 100))
    assert picked(T8, 4000, stamps) == [500, 1000, 1500, 2000, 2500, 3000, 3500, None]
    assert picked(T8, 1100, stamps[:11]) == [None, None, None, None, None, 100, 600, None]


def test_stream_at_12_hz_with_a_fifth_dropped():
    # Frame n at n * 83.333 ms, every fifth (n = 4, 9, 14 ...) lost: of the frames 36 and 30 before n = 42 or 43
    # some are missing, and a neighbour 83 ms away stands in.
    stamp = [round(n * 1000 / 12) for n in range(48)]
    stream = [stamp[n] for n in range(48) if n % 5 != 4]
    kept = stored(stream)
    assert kept == stream

    def numbers(now):
        past = [value for value in kept if value < stamp[now]]
        return [None if value is None else stamp.index(value) for value in picked(T8, stamp[now], past)]

    assert numbers(42) == [0, 6, 12, 18, 25, 30, 36, None]  # 24 was lost: 25 is as near as 23 and newer
    assert numbers(43) == [1, 7, 13, 18, 25, 31, 37, None]  # 19 was lost: 18 is 83 ms off, 20 is 84 ms off
    assert numbers(40) == [None, 3, 10, 16, 22, 28, 33, None]  # 4 and 34 were lost, 3.5 s ago there was no frame yet


def test_stream_at_uneven_intervals():
    stream = [0, 40, 130, 310, 330, 520, 790, 905, 1010, 1400, 1430, 1600, 1690, 2000]
    kept = stored(stream)
    assert kept == [0, 130, 310, 520, 790, 905, 1010, 1400, 1600, 1690, 2000]
    assert picked(T4, 2000, kept[:-1]) == [520, 1010, 1600, None]  # 1400 is as near as 1600 and older
    assert picked(T4, 2100, kept) == [520, 1010, 1600, None]
    assert picked(T4, 2250, kept) == [790, None, 1690, None]  # 1250 -+ 125: nothing between 1010 and 1400


def test_stream_at_30_hz_is_thinned():
    kept = stored([round(n * 1000 / 30) for n in range(91)])
    assert kept[:4] == [0, 100, 200, 300]
    assert picked(T4, 3033, kept) == [1500, 2000, 2500, None]


@pytest.mark.parametrize(
    ("nearest", "expected"),
    [
        ((None, None, None, None), (None, None, None, None)),
        ((None, None, 5, None), (5, 5, 5, None)),
        ((1, None, None, None), (1, None, None, None)),
        ((1, None, 5, None), (1, 5, 5, None)),
    ],
)
def test_empty_slot_repeats_the_next_newer(nearest, expected):
    assert T4.fill(nearest) == expected


def test_empty_future_slot_repeats_the_next_older():
    slots = Slots.at_interval((-1, 0, 1, 2), 0.5, 0.25)
    assert slots.fill((3, None, None, None)) == (3, None, None, None)
    assert slots.fill((None, None, 7, None)) == (None, None, 7, 7)


def test_velocity_scale_undoes_an_uneven_time_base():
    # An object at 10 m/s, seen 0.6 s ago: 6 m, which the model reads as 12 m/s over its nominal 0.5 s.
    assert T2.velocity_scale(1000 * MS, (0, None), [400 * MS]) == pytest.approx(10 / 12)
    assert T2.velocity_scale(1000 * MS, (0, None), [500 * MS]) == 1.0
    assert T2.velocity_scale(1000 * MS, (None, None), []) == 1.0
    # Two slots at 0.5 and 1.0 s, really 0.45 and 1.1 s: least squares gives (0.25 + 1) / (0.225 + 1.1).
    slots = Slots.at_interval((-2, -1, 0), 0.5, 0.25)
    assert slots.velocity_scale(2000 * MS, (0, 1, None), [900 * MS, 1550 * MS]) == pytest.approx(1.25 / 1.325)


def test_capacity_holds_every_frame_that_can_matter():
    assert Slots.at_interval((0,), 0.5, 0.25).capacity(75 * MS) == 0
    assert T2.capacity(75 * MS) == 11
    spacing = 75
    stamps = list(range(0, 10_000, spacing))
    kept = stamps[-T8.capacity(spacing * MS) :]
    for now in range(stamps[-1] + 1, stamps[-1] + 1 + spacing):
        assert picked(T8, now, kept) == picked(T8, now, stamps)


def test_offsets_must_ascend_through_now():
    with pytest.raises(ValueError, match="expected ascending numbers with a 0"):
        Slots.at_interval((-2, -1), 0.5, 0.1)


def camera(name="CAM_FRONT", **changes):
    values = {
        "image": np.zeros((90, 160, 3), np.uint8),
        "intrinsics": np.array([[120.0, 0, 80], [0, 120, 45], [0, 0, 1]]),
        "camera_from_bev": geometry.transform_from_rpy((0, 0, 0), (-np.pi / 2, 0, 0)),
        "stamp_ns": 10_000 * MS,
    }
    return CameraImage(name=name, **{**values, **changes})


def frame(stamp_ms=10_000, forward_m=0.0, scene="drive", cameras=None, yaw=0.0):
    world_from_bev = geometry.transform_from_rpy((1000, 2000 + forward_m, 0), (0, 0, yaw))
    cameras = (camera(), camera("CAM_BACK")) if cameras is None else cameras
    cameras = tuple(entry and replace(entry, stamp_ns=stamp_ms * MS) for entry in cameras)
    return SurroundFrame(stamp_ms * MS, cameras, world_from_bev, scene)


def zoomed(factor):
    return camera(intrinsics=np.diag([factor, factor, 1]) @ camera().intrinsics)


def turned(angle):
    return camera(camera_from_bev=geometry.transform_from_rpy((0, 0, 0), (0, angle, 0)) @ camera().camera_from_bev)


BACK = camera("CAM_BACK")


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (frame(10_100, 1.0), None),
        (frame(10_000), None),
        (frame(11_900, 30.0), None),
        (frame(10_100, cameras=(camera(), None)), None),  # one lost image is no reason to forget the others
        (frame(10_100, cameras=(zoomed(1.005), BACK)), None),
        (frame(10_100, cameras=(turned(0.02), BACK)), None),
        (frame(10_100, scene="other"), "scene_change"),
        (frame(2_000, -80), "backward_time"),  # a looping bag jumps in place as well; time names the reason
        (frame(9_999), "backward_time"),
        (frame(15_000, 5.0), "gap"),
        (frame(10_100, 50.0), "pose_jump"),
        (frame(10_100, yaw=1.0), "pose_jump"),
        (frame(10_100, cameras=(camera(), BACK, camera("CAM_LEFT"))), "camera_set_change"),
        (frame(10_100, cameras=(BACK, camera())), "camera_set_change"),
        (frame(10_100, cameras=(zoomed(1.05), BACK)), "calibration_change"),
        (frame(10_100, cameras=(turned(0.1), BACK)), "calibration_change"),
        (frame(10_100, cameras=(camera(image=np.zeros((180, 160, 3), np.uint8)), BACK)), "calibration_change"),
        (frame(10_100, cameras=(camera(lens=Lens("plumb_bob", (0.2, 0.0, 0.0, 0.0))), BACK)), "calibration_change"),
    ],
)
def test_reset_rules(second, expected):
    first = FrameRecord.of(frame(), None)
    assert reset_reason(first, FrameRecord.of(second, first), HistoryConfig()) == expected


@pytest.mark.parametrize(
    ("forward_m", "yaw", "expected"),
    [(6.9, 0.0, None), (7.1, 0.0, "pose_jump"), (0.0, 0.29, None), (0.0, 0.31, "pose_jump")],
)
def test_limits_of_motion(forward_m, yaw, expected):
    """In 0.1 s: 60 m/s and 1 m of noise, 2 rad/s and 0.1 rad of noise."""
    first = FrameRecord.of(frame(), None)
    second = FrameRecord.of(frame(10_100, forward_m, yaw=yaw), first)
    assert reset_reason(first, second, HistoryConfig()) == expected


@pytest.mark.parametrize(("change", "expected"), [(0.0, None), (0.005, None), (0.02, "calibration_change")])
def test_changed_distortion(change, expected):
    """Coefficients of the same number: another k2 in one camera."""
    before, after = (Lens("plumb_bob", (-0.3, k2, 0.0, 0.0, 0.0)) for k2 in (0.1, 0.1 + change))
    first = FrameRecord.of(frame(cameras=(camera(lens=before), BACK)), None)
    second = frame(10_100, cameras=(camera(lens=after), BACK))
    assert reset_reason(first, FrameRecord.of(second, first), HistoryConfig()) == expected


def test_another_kind_of_lens():
    before, after = (Lens(model, (0.1, 0.0, 0.0, 0.0)) for model in ("plumb_bob", "equidistant"))
    first = FrameRecord.of(frame(cameras=(camera(lens=before), BACK)), None)
    second = frame(10_100, cameras=(camera(lens=after), BACK))
    assert reset_reason(first, FrameRecord.of(second, first), HistoryConfig()) == "calibration_change"


def test_camera_that_was_missing_is_compared_with_its_last_image():
    config = HistoryConfig()
    first = FrameRecord.of(frame(), None)
    second = FrameRecord.of(frame(10_100, cameras=(camera(), None)), first)
    assert reset_reason(second, FrameRecord.of(frame(10_200), second), config) is None
    exchanged = FrameRecord.of(frame(10_200, cameras=(camera(), camera("CAM_LEFT"))), second)
    assert reset_reason(second, exchanged, config) == "camera_set_change"


def test_ego_motion_between_reference_and_exposure_is_no_recalibration():
    # At 20 m/s an exposure 40 ms later sees the world 0.8 m nearer.
    first = FrameRecord.of(frame(10_000), None)
    moved = geometry.transform_from_rpy((0, 0, -0.8), (0, 0, 0)) @ camera().camera_from_bev
    late = replace(camera(camera_from_bev=moved), stamp_ns=10_140 * MS)
    second = SurroundFrame(
        10_100 * MS, (late, replace(BACK, stamp_ns=10_100 * MS)), frame(10_100, 2.0).world_from_bev, "drive"
    )
    assert reset_reason(first, FrameRecord.of(second, first), HistoryConfig()) is None


def test_config_refuses_impossible_limits():
    with pytest.raises(ValueError, match="minimum_spacing_s is 0"):
        HistoryConfig(minimum_spacing_s=0)
    with pytest.raises(ValueError, match="pose_noise_m is -0.1, expected zero or more"):
        HistoryConfig(pose_noise_m=-0.1)
    HistoryConfig(pose_noise_m=0, tolerance=0)
    with pytest.raises(ValueError, match=r"tolerance is 0.5, expected .* no frame fills two slots"):
        HistoryConfig(tolerance=0.5)
