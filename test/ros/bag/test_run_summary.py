"""The demo's figures, from status messages whose arithmetic one can follow."""

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source .venv/bin/ros-activate")

from bevformer_ros.msg import DetectorStatus, ReasonCount, StageLatency

from bevformer_ros.ros.bag.run_summary import TOTAL_STAGE, StageTimes, summarise
from bevformer_ros.ros.conversions import header_of


def processed(number: int, milliseconds: float, dropped: dict[str, int] | None = None) -> DetectorStatus:
    """The status of the set with this number, after which `number` sets were processed."""
    return DetectorStatus(
        header=header_of(number, "base_link"),
        model="tiny",
        trained_weights=True,
        latencies=[StageLatency(stage="encode", milliseconds=milliseconds)],
        total_latency_ms=milliseconds + 5,
        sets_processed=number,
        sets_dropped=[ReasonCount(reason=reason, count=count) for reason, count in (dropped or {}).items()],
    )


def test_no_status_at_all():
    summary = summarise([], sets_in=4, boxes=0)
    assert (summary.processed, summary.dropped, summary.missing) == (0, {}, 4)
    assert not summary.trained
    assert not summary.succeeded
    assert "sets not accounted for        4" in summary.table()


def test_latencies_are_percentiles_of_the_processed_sets():
    statuses = [processed(number, 10.0 * number) for number in range(1, 6)]
    dropped = DetectorStatus(model="tiny", trained_weights=True, sets_processed=5)
    dropped.sets_dropped = [ReasonCount(reason="no_transform", count=1)]
    summary = summarise([*statuses, dropped], sets_in=6, boxes=30)
    # p95 of five values lies four fifths of the way from the fourth to the fifth.
    assert summary.stages == (StageTimes("encode", 30.0, 48.0), StageTimes(TOTAL_STAGE, 35.0, 53.0))
    assert (summary.processed, summary.dropped, summary.missing) == (5, {"no_transform": 1}, 0)
    assert summary.processed_stamps == {1, 2, 3, 4, 5}
    table = summary.table()
    assert "  no_transform                1" in table
    assert "30 (6.0 a set)" in table


def test_the_total_comes_last_even_if_a_stage_joins_late():
    late = processed(2, 10.0)
    late.latencies.append(StageLatency(stage="fuse", milliseconds=1.0))
    stages = summarise([processed(1, 10.0), late], sets_in=2, boxes=0).stages
    assert [entry.stage for entry in stages] == ["encode", "fuse", TOTAL_STAGE]


@pytest.mark.parametrize(
    ("count", "dropped", "sets_in", "succeeded"),
    [
        (10, {}, 10, True),
        (9, {}, 10, True),
        (8, {}, 10, False),
        (8, {"superseded": 2}, 10, False),
        (9, {"superseded": 1}, 10, True),
    ],
)
def test_success_needs_nine_in_ten_whatever_was_counted(count, dropped, sets_in, succeeded):
    assert summarise([processed(count, 1.0, dropped)], sets_in, boxes=0).succeeded is succeeded


def test_nothing_processed_is_no_success_whatever_was_counted():
    status = DetectorStatus(sets_dropped=[ReasonCount(reason="no_transform", count=10)])
    assert not summarise([status], sets_in=10, boxes=0).succeeded
