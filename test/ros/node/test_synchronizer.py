from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from bevformer_ros.ros.node.synchronizer import SILENT_AFTER_SETS, SurroundSynchronizer, SynchronizerConfig
from bevformer_ros.types import MILLISECOND_NS, SECOND_NS

PERIOD = 100
CONFIG = SynchronizerConfig(
    offsets_ns=(0, 8 * MILLISECOND_NS, -8 * MILLISECOND_NS),
    reference=0,
    tolerance_ns=40 * MILLISECOND_NS,
    accept_ns=5 * MILLISECOND_NS,
    timeout_ns=200 * MILLISECOND_NS,
    minimum_cameras=3,
    queue_size=4,
    repeat_ns=(0, 0, 0),
)


@dataclass(frozen=True)
class Stamp:
    sec: int
    nanosec: int


@dataclass(frozen=True)
class Header:
    stamp: Stamp


@dataclass(frozen=True)
class Stamped:
    """A message of which the synchroniser may only see the stamp; milliseconds for readable tables."""

    header: Header
    name: str


def stamped(camera: int, milliseconds: float) -> Stamped:
    seconds, nanoseconds = divmod(round(milliseconds * MILLISECOND_NS), SECOND_NS)
    return Stamped(Header(Stamp(seconds, nanoseconds)), f"{'abc'[camera]}{milliseconds:g}")


@dataclass
class Filter:
    callbacks: list[Any] = field(default_factory=list)

    def registerCallback(self, callback: Any) -> None:  # noqa: N802
        self.callbacks.append(callback)

    def send(self, message: Any) -> None:
        for callback in self.callbacks:
            callback(message)


def names_of(messages: tuple[Stamped | None, ...]) -> tuple[str | None, ...]:
    return tuple(None if message is None else message.name for message in messages)


class Bench:
    def __init__(self, config: SynchronizerConfig = CONFIG) -> None:
        self.synchronizer = SurroundSynchronizer(config)
        self.sets: list[tuple[int, tuple[str | None, ...]]] = []
        self.received = 0
        self.dropped: list[tuple[int, tuple[str | None, ...], str]] = []
        self.synchronizer.registerCallback(self._collect)
        self.synchronizer.on_drop(self._drop)

    def _collect(self, stamp_ns: int, messages: tuple[Stamped | None, ...]) -> None:
        self.sets.append((stamp_ns // MILLISECOND_NS, names_of(messages)))

    def _drop(self, stamp_ns: int, messages: tuple[Stamped | None, ...], reason: str) -> None:
        self.dropped.append((stamp_ns // MILLISECOND_NS, names_of(messages), reason))

    def send(self, camera: int, milliseconds: float) -> None:
        self.received += 1
        self.synchronizer.add(camera, stamped(camera, milliseconds))

    def waiting(self) -> int:
        return sum(len(stamps) for stamps in self.synchronizer._stamps)

    def assert_every_image_is_accounted_for(self) -> None:
        emitted = sum(name is not None for _, names in self.sets for name in names)
        assert self.received == emitted + sum(self.synchronizer.images_dropped.values()) + self.waiting()


# images sent (camera, ms), sets expected, sets dropped, images dropped
CASES = {
    "nothing": ([], [], {}, {}),
    "no reference image": ([(1, 8), (2, 0)], [], {}, {}),
    "exact": ([(2, 92), (0, 100), (1, 108)], [(100, ("a100", "b108", "c92"))], {}, {}),
    "any order of arrival": ([(1, 108), (0, 100), (2, 92)], [(100, ("a100", "b108", "c92"))], {}, {}),
    "jitter within accept": ([(0, 100), (1, 104), (2, 89)], [(100, ("a100", "b104", "c89"))], {}, {}),
    "early image waits for a nearer one": ([(0, 100), (2, 92), (1, 90)], [], {}, {}),
    "nearer image comes": (
        [(0, 100), (2, 92), (1, 90), (1, 112)],
        [(100, ("a100", "b112", "c92"))],
        {},
        {"unmatched": 1},
    ),
    "later image proves the early one nearest": (
        [(0, 100), (2, 92), (1, 90), (1, 190)],
        [(100, ("a100", "b90", "c92"))],
        {},
        {},
    ),
    "image at the target's far side is certain": (
        [(0, 100), (2, 92), (1, 140)],
        [(100, ("a100", "b140", "c92"))],
        {},
        {},
    ),
    "exactly at the tolerance": (
        [(0, 100), (2, 92), (1, 148)],
        [(100, ("a100", "b148", "c92"))],
        {},
        {},
    ),
    "exactly within accept": ([(0, 100), (2, 92), (1, 103)], [(100, ("a100", "b103", "c92"))], {}, {}),
    "pending sets are bounded, here four": (
        [(0, 100), (0, 110), (0, 120), (0, 130), (0, 140)],
        [],
        {"incomplete": 1},
        {"incomplete_set": 1},
    ),
    "outside the tolerance": (
        [(0, 100), (2, 92), (1, 149)],
        [],
        {"incomplete": 1},
        {"incomplete_set": 2},
    ),
    "older images go": (
        [(1, 0), (2, 40), (0, 100), (1, 108), (2, 92)],
        [(100, ("a100", "b108", "c92"))],
        {},
        {"unmatched": 2},
    ),
    "duplicate and out of order": (
        [(0, 100), (0, 100), (0, 60), (1, 108), (2, 92)],
        [(100, ("a100", "b108", "c92"))],
        {},
        {"duplicate": 1, "out_of_order": 1},
    ),
    "lost image resolves at the next one": (
        [(0, 100), (2, 92), (0, 200), (1, 208), (2, 192)],
        [(200, ("a200", "b208", "c192"))],
        {"incomplete": 1},
        {"incomplete_set": 2},
    ),
    "the reference's stamps run past the timeout": (
        [(0, 100), (1, 108), (0, 200), (0, 300)],
        [],
        {"incomplete": 1},
        {"incomplete_set": 2},
    ),
    "queues are bounded": ([(1, 100 * step + 8) for step in range(7)], [], {}, {"queue_full": 3}),
    "a bag that starts again": (
        [(2, 5092), (0, 5100), (0, 100), (1, 108), (2, 92)],
        [(100, ("a100", "b108", "c92"))],
        {"time_jump": 1},
        {"time_jump": 2},
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_arrivals(case):
    images, sets, sets_dropped, images_dropped = case
    bench = Bench()
    for camera, milliseconds in images:
        bench.send(camera, milliseconds)
    assert bench.sets == sets
    assert bench.synchronizer.sets_dropped == sets_dropped
    assert bench.synchronizer.images_dropped == images_dropped
    assert Counter(reason for _, _, reason in bench.dropped) == sets_dropped
    bench.assert_every_image_is_accounted_for()


def test_connects_to_filters_and_hands_on_arguments():
    filters = [Filter() for _ in range(3)]
    synchronizer = SurroundSynchronizer(CONFIG)
    synchronizer.connectInput(*filters)
    got = []
    assert synchronizer.registerCallback(lambda *arguments: got.append(arguments), "extra") == 0
    assert synchronizer.registerCallback(lambda stamp_ns, messages: got.append(stamp_ns)) == 1
    messages = (stamped(0, 100), stamped(1, 108), stamped(2, 92))
    for source, message in zip(filters, messages, strict=True):
        source.send(message)
    assert got == [(100 * MILLISECOND_NS, messages, "extra"), 100 * MILLISECOND_NS]
    with pytest.raises(ValueError, match="got 2 filters"):
        synchronizer.connectInput(*filters[:2])


def test_expire_counts_from_its_first_call_after_arrival():
    bench = Bench(replace(CONFIG, minimum_cameras=2))
    bench.send(0, 100)
    bench.send(1, 108)
    now = 7_000 * MILLISECOND_NS
    bench.synchronizer.expire(now)
    bench.synchronizer.expire(now + CONFIG.timeout_ns - 1)
    assert bench.sets == []
    bench.synchronizer.expire(now + CONFIG.timeout_ns)
    assert bench.sets == [(100, ("a100", "b108", None))]


def test_expire_drops_a_set_with_too_few_cameras():
    bench = Bench()
    bench.send(0, 100)
    bench.synchronizer.expire(0)
    bench.synchronizer.expire(CONFIG.timeout_ns)
    assert bench.sets == []
    assert bench.synchronizer.sets_dropped == {"incomplete": 1}
    bench.assert_every_image_is_accounted_for()


def test_expire_restarts_its_count_when_the_clock_goes_back():
    bench = Bench(replace(CONFIG, minimum_cameras=1))
    bench.send(0, 100)
    bench.synchronizer.expire(10_000 * MILLISECOND_NS)
    bench.synchronizer.expire(100 * MILLISECOND_NS)
    bench.synchronizer.expire(299 * MILLISECOND_NS)
    assert bench.sets == []
    bench.synchronizer.expire(300 * MILLISECOND_NS)
    assert bench.sets == [(100, ("a100", None, None))]


def test_a_silent_camera_is_not_waited_for_until_it_sends_again():
    bench = Bench(replace(CONFIG, minimum_cameras=2))
    for index in range(SILENT_AFTER_SETS):
        bench.send(2, PERIOD * index + 92)
        bench.send(0, PERIOD * index + 100)
        assert len(bench.sets) == index
        bench.synchronizer.expire(0)
        bench.synchronizer.expire(CONFIG.timeout_ns)
        assert len(bench.sets) == index + 1
    bench.send(2, 492)
    bench.send(0, 500)
    assert bench.sets[-1] == (500, ("a500", None, "c492"))
    bench.send(1, 600)
    bench.send(2, 692)
    bench.send(0, 700)
    assert bench.sets[-1][0] == 500
    bench.send(1, 708)
    assert bench.sets[-1] == (700, ("a700", "b708", "c692"))


def bench_with_silent_cameras(*silent: int) -> Bench:
    """Two images make a set; the cameras named have missed the sets at 100, 200 and 300."""
    bench = Bench(replace(CONFIG, minimum_cameras=2))
    for stamp in (100, 200, 300):
        for camera in {0, 1, 2} - set(silent):
            bench.send(camera, stamp + CONFIG.offsets_ns[camera] / MILLISECOND_NS)
        bench.synchronizer.expire(0)
        bench.synchronizer.expire(CONFIG.timeout_ns)
    return bench


def test_silent_cameras_are_waited_for_where_a_set_needs_them():
    bench = bench_with_silent_cameras(1, 2)
    assert bench.synchronizer.sets_dropped == {"incomplete": 3}
    bench.send(0, 400)
    assert bench.synchronizer.sets_dropped == {"incomplete": 3}
    bench.send(2, 392)
    assert bench.sets == [(400, ("a400", None, "c392"))]


@pytest.mark.parametrize("forget", [lambda it: it.clear("reset"), lambda it: it.forget_after(0)])
def test_silence_is_forgotten_with_the_rest(forget):
    bench = bench_with_silent_cameras(1)
    before = len(bench.sets)
    assert before == 3
    forget(bench.synchronizer)
    bench.send(2, 392)
    bench.send(0, 400)
    assert len(bench.sets) == before
    bench.send(1, 408)
    assert bench.sets[-1] == (400, ("a400", "b408", "c392"))


def test_forget_after_keeps_images_of_the_new_pass():
    bench = Bench()
    for milliseconds in (9100, 9200):
        bench.send(0, milliseconds)
    bench.send(0, 100)  # the new pass overtook the clock's jump
    bench.synchronizer.forget_after(50 * MILLISECOND_NS)
    assert bench.synchronizer.sets_dropped == {"time_jump": 2}
    bench.send(1, 108)
    bench.send(2, 92)
    assert bench.sets == [(100, ("a100", "b108", "c92"))]


def test_forget_after_drops_only_what_lies_later():
    """Each camera's queue holds an image of before and one of after the stamp; the timeout is a margin."""
    bench = Bench()
    for camera in (1, 2):
        for milliseconds in (100, 9100):
            bench.send(camera, milliseconds)
    bench.synchronizer.forget_after(50 * MILLISECOND_NS)
    assert bench.synchronizer.images_dropped == {"time_jump": 2}
    assert bench.synchronizer._stamps == [[], [100 * MILLISECOND_NS], [100 * MILLISECOND_NS]]


def test_drops_say_what_there_was():
    bench = Bench()
    for camera, milliseconds in [(0, 100), (2, 92), (0, 200), (1, 208), (2, 192), (0, 300)]:
        bench.send(camera, milliseconds)
    bench.synchronizer.clear("deactivated")
    assert bench.dropped == [
        (100, ("a100", None, "c92"), "incomplete"),
        (300, ("a300", None, None), "deactivated"),
    ]


def test_clear_counts_under_its_reason():
    bench = Bench()
    bench.send(0, 100)
    bench.send(1, 108)
    bench.synchronizer.clear("deactivated")
    assert bench.synchronizer.sets_dropped == {"deactivated": 1}
    assert bench.synchronizer.images_dropped == {"deactivated": 2}
    bench.send(0, 50)
    assert bench.waiting() == 1


@pytest.mark.parametrize("seed", range(20))
def test_shuffled_arrival_gives_each_set_exactly_once(seed):
    """Cameras lag differently by up to 1.5 periods; each camera's own images keep their order, as in DDS."""
    chance = random.Random(seed)
    config = replace(CONFIG, timeout_ns=400 * MILLISECOND_NS, queue_size=8)
    arrivals = []
    for camera, offset in enumerate(config.offsets_ns):
        arrived = 0.0
        for index in range(100):
            stamp = PERIOD * (index + 1) + offset / MILLISECOND_NS + chance.uniform(-20, 20)
            arrived = max(arrived + 1e-6, stamp + chance.uniform(0, 1.5 * PERIOD))
            arrivals.append((arrived, camera, stamp))
    bench = Bench(replace(config, tolerance_ns=49 * MILLISECOND_NS))
    for _, camera, stamp in sorted(arrivals):
        bench.send(camera, stamp)
    bench.synchronizer.expire(0)
    bench.synchronizer.expire(config.timeout_ns)
    assert len(bench.sets) == 100
    for index, (_, names) in enumerate(bench.sets):
        for name in names:
            assert abs(float(name[1:]) - PERIOD * (index + 1)) < PERIOD / 2
    assert not bench.synchronizer.sets_dropped
    assert not bench.synchronizer.images_dropped


@pytest.mark.parametrize("seed", range(20))
def test_no_image_is_ever_lost_from_the_books(seed):
    """Loss, duplicates, disorder and restarts: whatever comes, work stays bounded and every image is counted."""
    chance = random.Random(seed)
    bench = Bench(replace(CONFIG, minimum_cameras=chance.randint(1, 3)))
    base = 1000
    for _ in range(400):
        base = 1000 if chance.random() < 0.01 else base + chance.randint(0, 60)
        bench.send(chance.randrange(3), base + chance.randint(-50, 50))
        if chance.random() < 0.1:
            bench.synchronizer.expire(base * MILLISECOND_NS)
        assert bench.waiting() <= 3 * (CONFIG.queue_size + 1)
    bench.assert_every_image_is_accounted_for()
    bench.synchronizer.clear("deactivated")
    assert bench.waiting() == 0


@pytest.mark.parametrize(
    "change",
    [
        {"accept_ns": 0},
        {"accept_ns": CONFIG.tolerance_ns},
        {"timeout_ns": CONFIG.tolerance_ns + 1},
        {"minimum_cameras": 1},
        {"queue_size": 2},
    ],
)
def test_configuration_at_its_limits_is_accepted(change):
    replace(CONFIG, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference": 3}, "reference is 3"),
        ({"offsets_ns": (1, 0, 0)}, "exposure offset of 1 ns, expected 0"),
        ({"accept_ns": 41 * MILLISECOND_NS}, "accept_ns"),
        ({"timeout_ns": 1}, "timeout_ns is 1"),
        ({"minimum_cameras": 4}, "minimum_cameras is 4, expected 1..3"),
        ({"queue_size": 1}, "queue_size is 1"),
    ],
)
def test_wrong_configuration_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **change)


HALF_RATE = replace(CONFIG, offsets_ns=(0, 0, 0), repeat_ns=(0, 0, 150 * MILLISECOND_NS))


def test_a_slow_camera_serves_again_where_the_rig_says_so():
    bench = Bench(HALF_RATE)
    for camera in (2, 0, 1):
        bench.send(camera, 0)
    bench.send(0, 100)
    bench.send(1, 100)
    assert [stamp for stamp, _ in bench.sets] == [0]  # at what pace c comes is not known yet: 100 might be on its way
    bench.send(2, 200)
    for stamp in (200, 300):
        bench.send(0, stamp)
        bench.send(1, stamp)
    assert bench.sets[1:] == [
        (100, ("a100", "b100", "c0")),
        (200, ("a200", "b200", "c200")),
        (300, ("a300", "b300", "c200")),
    ]
    bench.send(0, 400)
    bench.send(1, 400)
    assert bench.sets[-1][0] == 300  # c is due
    bench.send(2, 400)
    assert bench.sets[-1] == (400, ("a400", "b400", "c400"))
    for stamp in (500, 600, 700, 800):  # c has died: its last image serves for 150 ms more
        bench.send(0, stamp)
        bench.send(1, stamp)
    assert bench.sets[-1] == (500, ("a500", "b500", "c400"))
    assert bench.dropped[0] == (600, ("a600", "b600", None), "incomplete")
    assert bench.synchronizer.images_dropped == Counter({"incomplete_set": 2})


def test_every_image_of_a_repeating_camera_is_in_a_set_or_counted_once():
    generator = random.Random(0)
    bench = Bench(replace(HALF_RATE, minimum_cameras=2))
    for stamp in range(0, 20_000, 20):
        for camera, period in enumerate((100, 100, 260)):
            if stamp % period == 0 and generator.random() < 0.8:
                bench.send(camera, stamp)
    emitted = len({name for _, names in bench.sets for name in names if name is not None})
    served_and_waiting = sum(bench.synchronizer._served)
    waiting = bench.waiting() - served_and_waiting
    assert bench.received == emitted + sum(bench.synchronizer.images_dropped.values()) + waiting
    assert len({names[2] for _, names in bench.sets}) < sum(names[2] is not None for _, names in bench.sets)


@pytest.mark.parametrize("repeat_ns", [(0, 0), (0, 0, -1)])
def test_repeats_that_make_no_sense(repeat_ns):
    with pytest.raises(ValueError, match="repeat_ns is .*, expected 0 or more for each of 3 cameras"):
        replace(CONFIG, repeat_ns=repeat_ns)
