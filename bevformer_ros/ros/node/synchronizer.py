"""Which images belong together: stamps only, in the message_filters protocol, with bounded memory and work."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bevformer_ros.types import SECOND_NS

# A camera that missed this many sets running is not waited for until it sends again.
SILENT_AFTER_SETS = 3


@dataclass(frozen=True)
class SynchronizerConfig:
    """Times are nanoseconds of message stamps.

    offsets_ns: per camera, its expected stamp relative to the reference camera's. reference: index of the
    reference camera. tolerance_ns: farthest an image may lie from its target; less than half a frame period,
    or neighbouring sets compete for images. accept_ns: an image this close to its target is taken at once,
    without waiting for one that might be nearer. timeout_ns: how long a set waits for missing cameras, counted
    on the reference camera's stamps and on the clock given to expire(). minimum_cameras: a set with fewer
    images is dropped. queue_size: images kept per camera. repeat_ns: per camera, how much older than its target
    an image may be that serves again, where no nearer one is to be had: for cameras slower than the reference.
    0: each serves once.
    """

    offsets_ns: tuple[int, ...]
    reference: int
    tolerance_ns: int
    accept_ns: int
    timeout_ns: int
    minimum_cameras: int
    queue_size: int
    repeat_ns: tuple[int, ...]

    def __post_init__(self) -> None:
        count = len(self.offsets_ns)
        if not 0 <= self.reference < count:
            raise ValueError(f"reference is {self.reference}, expected the index of one of {count} cameras")
        if self.offsets_ns[self.reference] != 0:
            raise ValueError(
                f"the reference camera has an exposure offset of {self.offsets_ns[self.reference]} ns, expected 0: "
                "offsets are relative to it"
            )
        if len(self.repeat_ns) != count or min(self.repeat_ns) < 0:
            raise ValueError(f"repeat_ns is {self.repeat_ns}, expected 0 or more for each of {count} cameras")
        if not 0 <= self.accept_ns <= self.tolerance_ns:
            raise ValueError(
                f"accept_ns is {self.accept_ns}, expected 0..{self.tolerance_ns}, the tolerance: "
                "an image outside the tolerance never belongs to the set"
            )
        if self.timeout_ns <= self.tolerance_ns:
            raise ValueError(f"timeout_ns is {self.timeout_ns}, expected more than the tolerance {self.tolerance_ns}")
        if not 1 <= self.minimum_cameras <= count:
            raise ValueError(f"minimum_cameras is {self.minimum_cameras}, expected 1..{count}, the cameras of the rig")
        if self.queue_size < 2:
            raise ValueError(f"queue_size is {self.queue_size}, expected at least 2")


@dataclass
class _Pending:
    stamp_ns: int
    first_expire_ns: int | None = None


class SurroundSynchronizer:
    """Groups one image per camera around each image of the reference camera.

    A filter in the message_filters protocol: connectInput takes filters that have registerCallback, and
    callbacks registered here receive (reference_stamp_ns, messages in rig order, None where missing). Messages
    need header.stamp only. Each camera's stamps are expected to rise, as one publisher's messages do on arrival;
    a step back by more than the timeout is a restart (bag loop) and forgets what came before.

    Sets leave in the order of their stamps. Per camera the image nearest to its target is certain, and the set
    need not wait for it, once an image lies at or after the target or within accept_ns of it.

    sets_dropped and images_dropped count by reason; an image of an emitted set is in neither.
    """

    def __init__(self, config: SynchronizerConfig) -> None:
        self.config = config
        self.sets_dropped: Counter[str] = Counter()
        self.images_dropped: Counter[str] = Counter()
        self._stamps: list[list[int]] = [[] for _ in config.offsets_ns]
        self._messages: list[list[Any]] = [[] for _ in config.offsets_ns]
        self._newest: list[int | None] = [None] * len(config.offsets_ns)
        self._missed: list[int] = [0] * len(config.offsets_ns)
        self._periods: list[int] = [0] * len(config.offsets_ns)
        self._served: list[bool] = [False] * len(config.offsets_ns)  # whether the oldest image was in a set
        self._pending: deque[_Pending] = deque()
        self._callbacks: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._drop_callbacks: list[Callable[[int, tuple[Any, ...], str], None]] = []

    def connectInput(self, *filters: Any) -> None:  # noqa: N802 (the name of the protocol)
        """One filter per camera, in the order of the rig."""
        if len(filters) != len(self.config.offsets_ns):
            raise ValueError(f"got {len(filters)} filters, expected one for each of {len(self.config.offsets_ns)}")
        for camera, source in enumerate(filters):
            source.registerCallback(lambda message, camera=camera: self.add(camera, message))

    def registerCallback(self, callback: Callable[..., None], *arguments: Any) -> int:  # noqa: N802
        """callback(reference_stamp_ns, messages, *arguments) is called once per set; returns its index."""
        self._callbacks.append((callback, arguments))
        return len(self._callbacks) - 1

    def on_drop(self, callback: Callable[[int, tuple[Any, ...], str], None]) -> None:
        """callback(reference_stamp_ns, the messages that there were, reason) is called once per set not emitted."""
        self._drop_callbacks.append(callback)

    def add(self, camera: int, message: Any) -> None:
        """Take one image of the camera with this index and emit every set that it makes certain."""
        stamp = message.header.stamp.sec * SECOND_NS + message.header.stamp.nanosec
        newest = self._newest[camera]
        if newest is not None and stamp <= newest:
            if newest - stamp <= self.config.timeout_ns:
                self.images_dropped["duplicate" if stamp == newest else "out_of_order"] += 1
                return
            self.forget_after(stamp)
        self._periods[camera] = stamp - newest if newest is not None and stamp > newest else 0
        self._newest[camera] = stamp
        self._missed[camera] = 0
        self._stamps[camera].append(stamp)
        self._messages[camera].append(message)
        if camera == self.config.reference:
            self._pending.append(_Pending(stamp))
        elif len(self._stamps[camera]) > self.config.queue_size:
            self._discard(camera, 1, "queue_full")
        self._emit_certain_sets()

    def expire(self, now_ns: int) -> None:
        """Give up waiting for sets that were already pending at a call at least timeout_ns before now_ns.

        Counting from the first call after a set's arrival lets images that wait in the transport's queues in.
        """
        for pending in self._pending:
            if pending.first_expire_ns is None or pending.first_expire_ns > now_ns:
                pending.first_expire_ns = now_ns
        while self._pending and now_ns - self._pending[0].first_expire_ns >= self.config.timeout_ns:  # type: ignore[operator]
            self._finish(self._choices(self._pending[0].stamp_ns))
            self._emit_certain_sets()

    def forget_after(self, stamp_ns: int) -> None:
        """Time went back to stamp_ns: drop all that lies later by more than the timeout, which is from before."""
        latest = stamp_ns + self.config.timeout_ns
        while self._pending and self._pending[-1].stamp_ns > latest:
            self._drop(self._pending[-1].stamp_ns, "time_jump")
            self._pending.pop()
        for camera, stamps in enumerate(self._stamps):
            self._discard(camera, len(stamps) - bisect_right(stamps, latest), "time_jump", newest=True)
            newest = self._newest[camera]
            if newest is not None and newest > latest:
                self._newest[camera] = stamps[-1] if stamps else None
        self._missed = [0] * len(self._missed)

    def clear(self, reason: str) -> None:
        """Drop everything that waits, counted under the reason."""
        while self._pending:
            self._drop(self._pending[0].stamp_ns, reason)
            self._pending.popleft()
        for camera, stamps in enumerate(self._stamps):
            self._discard(camera, len(stamps), reason)
        self._newest = [None] * len(self._newest)
        self._missed = [0] * len(self._missed)

    def _emit_certain_sets(self) -> None:
        while self._pending:
            stamp = self._pending[0].stamp_ns
            choices = self._choices(stamp)
            newest_reference = self._pending[-1].stamp_ns
            given_up = newest_reference - stamp >= self.config.timeout_ns or len(self._pending) > self.config.queue_size
            if not given_up and any(self._must_wait(camera, stamp, choices) for camera in range(len(choices))):
                return
            self._finish(choices)

    def _choices(self, reference_stamp: int) -> list[int | None]:
        """Per camera the position in its queue of the nearest image, None where none is within the tolerance, or may
        serve again."""
        choices: list[int | None] = []
        for offset, repeat_ns, stamps in zip(self.config.offsets_ns, self.config.repeat_ns, self._stamps, strict=True):
            target = reference_stamp + offset
            after = bisect_left(stamps, target)
            near = [index for index in (after - 1, after) if 0 <= index < len(stamps)]
            nearest = min(near, key=lambda index: abs(stamps[index] - target), default=None)
            if nearest is not None and abs(stamps[nearest] - target) <= self.config.tolerance_ns:
                choices.append(nearest)
            else:
                choices.append(after - 1 if after and target - stamps[after - 1] <= repeat_ns else None)
        return choices

    def _must_wait(self, camera: int, reference_stamp: int, choices: list[int | None]) -> bool:
        stamps, choice = self._stamps[camera], choices[camera]
        target = reference_stamp + self.config.offsets_ns[camera]
        if stamps and stamps[-1] >= target:
            return False
        if choice is not None and abs(stamps[choice] - target) <= self.config.accept_ns:
            return False
        if choice is not None and self.config.repeat_ns[camera] and self._next_is_too_late(camera, target):
            return False
        silent = self._missed[camera] >= SILENT_AFTER_SETS
        present = sum(other is not None for other in choices)
        return not (silent and present >= self.config.minimum_cameras)

    def _next_is_too_late(self, camera: int, target: int) -> bool:
        """Whether, at the pace of its last two images, a camera's next image will lie beyond the tolerance."""
        period = self._periods[camera]
        return period > 0 and self._stamps[camera][-1] + period > target + self.config.tolerance_ns

    def _finish(self, choices: list[int | None]) -> None:
        """Emit or drop the oldest pending set, and let go of images that no later set can use."""
        pending = self._pending[0]
        messages = self._chosen(choices)
        present = sum(message is not None for message in messages)
        complete = present >= self.config.minimum_cameras
        if not complete:
            self._drop(pending.stamp_ns, "incomplete")
            once = (repeat_ns == 0 for repeat_ns in self.config.repeat_ns)
            leaving = sum(message is not None for message, leaves in zip(messages, once, strict=True) if leaves)
            self.images_dropped["incomplete_set"] += leaving
        self._pending.popleft()
        for camera, choice in enumerate(choices):
            stamps = self._stamps[camera]
            if choice is None:
                self._missed[camera] += 1
                earliest = pending.stamp_ns + self.config.offsets_ns[camera] - self.config.tolerance_ns
                self._discard(camera, bisect_left(stamps, earliest), "unmatched")
                continue
            self._discard(camera, choice, "unmatched")
            if self.config.repeat_ns[camera]:
                self._served[camera] = self._served[camera] or complete
            else:
                del stamps[0], self._messages[camera][0]
        if complete:
            for callback, arguments in self._callbacks:
                callback(pending.stamp_ns, messages, *arguments)

    def _drop(self, reference_stamp: int, reason: str) -> None:
        self.sets_dropped[reason] += 1
        messages = self._chosen(self._choices(reference_stamp))
        for callback in self._drop_callbacks:
            callback(reference_stamp, messages, reason)

    def _chosen(self, choices: list[int | None]) -> tuple[Any, ...]:
        return tuple(
            None if choice is None else self._messages[camera][choice] for camera, choice in enumerate(choices)
        )

    def _discard(self, camera: int, count: int, reason: str, newest: bool = False) -> None:
        """Let go of the oldest images, or the newest; counted are those that no set had."""
        if count:
            kept = len(self._stamps[camera]) - count
            part = slice(kept, None) if newest else slice(count)
            served = self._served[camera] and (not newest or kept == 0)
            del self._stamps[camera][part], self._messages[camera][part]
            self._served[camera] = self._served[camera] and not served
            if count > served:
                self.images_dropped[reason] += count - served
