"""message_filters with stamped stand-ins: no node, no clock, no sleep."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")
message_filters = pytest.importorskip("message_filters")

from message_filters import ApproximateTimeSynchronizer, SimpleFilter, TimeSynchronizer
from transform_messages import at


def stand_in(seconds: float, name: str = "") -> SimpleNamespace:
    return SimpleNamespace(header=SimpleNamespace(stamp=at(seconds).to_msg()), name=name, seconds=seconds)


class Rig:
    """Some filters, a synchronizer behind them, and what it signals."""

    def __init__(self, synchronizer: type, count: int, *arguments, **options) -> None:
        self.filters = [SimpleFilter() for _ in range(count)]
        self.signalled: list[tuple] = []
        self.synchronizer = synchronizer(self.filters, *arguments, **options)
        self.synchronizer.registerCallback(lambda *messages: self.signalled.append(messages))

    def send(self, index: int, seconds: float) -> None:
        self.filters[index].signalMessage(stand_in(seconds))

    @property
    def seconds(self) -> list[tuple[float, ...]]:
        return [tuple(message.seconds for message in messages) for messages in self.signalled]


# --- The protocol


def test_a_filter_without_callbacks_takes_messages():
    SimpleFilter().signalMessage("message")


def test_callbacks_are_called_in_order_with_messages_and_then_their_own_arguments():
    calls: list[tuple] = []
    simple = SimpleFilter()
    connections = [simple.registerCallback(lambda *given: calls.append(given), *own) for own in ((), (1, 2))]
    simple.signalMessage("a", "b")
    assert calls == [("a", "b"), ("a", "b", 1, 2)]
    assert len(set(connections)) == 2


def test_synchronizers_can_be_chained():
    rig = Rig(TimeSynchronizer, 2, 5)
    after = SimpleFilter()
    rig.synchronizer.registerCallback(after.signalMessage)
    seen: list[tuple] = []
    after.registerCallback(lambda *messages: seen.append(messages))
    rig.send(0, 1)
    rig.send(1, 1)
    assert seen == rig.signalled != []


# --- Equal stamps


def test_one_filter_synchronizes_with_itself():
    rig = Rig(TimeSynchronizer, 1, 5)
    rig.send(0, 1)
    assert rig.seconds == [(1,)]


def test_nothing_is_signalled_until_the_set_is_complete():
    rig = Rig(TimeSynchronizer, 3, 5)
    rig.send(0, 1)
    rig.send(2, 1)
    rig.send(1, 1.000000001)
    assert rig.seconds == []
    rig.send(1, 1)
    assert rig.seconds == [(1, 1, 1)]


def test_shuffled_arrivals_within_the_queue_size_lose_no_complete_set():
    shuffled = random.Random(0)
    for length in range(1, 10):
        rig = Rig(TimeSynchronizer, 2, length)
        for second in shuffled.sample(range(length), length):
            rig.send(0, second)
        for second in range(length):
            rig.send(1, second)
        assert rig.seconds == [(second, second) for second in range(length)]


def test_upstream_forgets_what_is_older_than_the_set_it_signalled():
    rig = Rig(TimeSynchronizer, 2, 10)
    for index, second in ((0, 0), (1, 1), (0, 1), (1, 0)):
        rig.send(index, second)
    assert rig.seconds == [(1, 1)]


def test_a_full_queue_drops_the_oldest_stamp_even_if_it_has_just_come():
    rig = Rig(TimeSynchronizer, 2, 2)
    for second in (1, 2, 3):
        rig.send(0, second)
    rig.send(1, 1)
    rig.send(0, 1)
    assert rig.seconds == []
    rig.send(1, 3)
    assert rig.seconds == [(3, 3)]


def test_ros_2s_python_keeps_its_queues_when_time_jumps_back():
    rig = Rig(TimeSynchronizer, 2, 1)
    rig.send(0, 100)
    for index in (0, 1, 0, 1):
        rig.send(index, 1)
    assert rig.seconds == []


@pytest.mark.parametrize("synchronizer", [(TimeSynchronizer, 5), (ApproximateTimeSynchronizer, 5, 0.1)])
def test_a_stamp_may_be_an_rclpy_time(synchronizer):
    kind, *arguments = synchronizer
    rig = Rig(kind, 2, *arguments)
    for simple in rig.filters:
        simple.signalMessage(SimpleNamespace(header=SimpleNamespace(stamp=at(1)), seconds=1))
    assert rig.seconds == [(1, 1)]


def test_a_message_without_a_stamp_cannot_be_synchronized_exactly():
    rig = Rig(TimeSynchronizer, 1, 5)
    with pytest.raises((ValueError, AttributeError)):
        rig.filters[0].signalMessage("no header")


# --- Near stamps


def test_near_stamps_are_signalled_once():
    rig = Rig(ApproximateTimeSynchronizer, 2, 5, 0.1)
    for index, second in ((0, 1.0), (1, 1.2), (0, 1.15), (1, 1.16)):
        rig.send(index, second)
    assert rig.seconds == [(1.15, 1.2)]


def test_the_nearest_to_the_new_message_is_taken_and_the_rest_stays_queued():
    rig = Rig(ApproximateTimeSynchronizer, 2, 5, 0.5)
    for second in (1.0, 1.1, 1.2):
        rig.send(0, second)
    for second in (1.12, 1.13):
        rig.send(1, second)
    assert rig.seconds == [(1.1, 1.12), (1.2, 1.13)]
    rig.send(1, 1.3)
    assert rig.seconds[-1] == (1.0, 1.3), "upstream may signal an older message after a newer one"


@pytest.mark.parametrize(("apart", "signalled"), [(0.0999, True), (0.1, False)])
def test_upstream_signals_only_what_lies_less_than_the_slop_apart(apart, signalled):
    rig = Rig(ApproximateTimeSynchronizer, 2, 5, 0.1)
    rig.send(0, 1)
    rig.send(1, 1 + apart)
    assert bool(rig.signalled) == signalled


def test_upstream_never_matches_with_a_slop_of_zero():
    rig = Rig(ApproximateTimeSynchronizer, 2, 5, 0)
    rig.send(0, 1)
    rig.send(1, 1)
    assert rig.signalled == []


def test_the_whole_set_must_fit_into_the_slop():
    rig = Rig(ApproximateTimeSynchronizer, 3, 5, 0.1)
    for index, second in ((0, 1.0), (2, 1.12), (1, 1.06)):
        rig.send(index, second)
    assert rig.seconds == []
    rig.send(2, 1.09)
    assert rig.seconds == [(1.0, 1.06, 1.09)]


def test_shuffled_arrivals_come_out_as_sets():
    shuffled = random.Random(1)
    rig = Rig(ApproximateTimeSynchronizer, 3, 30, 0.04)
    arrivals = [(index, second + 0.01 * index) for index in range(3) for second in range(20)]
    for index, second in shuffled.sample(arrivals, len(arrivals)):
        rig.send(index, second)
    assert sorted(rig.seconds) == [(s, s + 0.01, s + 0.02) for s in range(20)]


def test_a_message_without_a_stamp_is_ignored_unless_headerless_ones_are_allowed():
    strict = Rig(ApproximateTimeSynchronizer, 1, 5, 0.1)
    strict.filters[0].signalMessage(SimpleNamespace(seconds=1))
    lenient = Rig(ApproximateTimeSynchronizer, 1, 5, 0.1, allow_headerless=True)
    lenient.filters[0].signalMessage(SimpleNamespace(seconds=1))
    assert (strict.seconds, lenient.seconds) == ([], [(1,)])


def test_arrival_times_can_stand_in_for_stamps():
    rig = Rig(ApproximateTimeSynchronizer, 2, 5, 60, sync_arrival_time=True)
    rig.send(0, 1)
    rig.send(1, 500)
    assert rig.seconds == [(1, 500)]
