"""The tree of frames over time: what tf2's BufferCore is, without ROS types, threads or clocks.

Stamps are integer nanoseconds; 0 asks for the latest time at which every moving link on the way has data.
"""

from __future__ import annotations

from collections.abc import Iterator

from tf2_ros.cache import Link, StaticCache, TimeCache
from tf2_ros.exceptions import (
    ConnectivityException,
    ExtrapolationException,
    InvalidArgumentException,
    LookupException,
)
from tf2_ros.rigid import IDENTITY, Rigid, compose, invert

_MAXIMUM_DEPTH = 1000
_UNLIMITED = 2**63 - 1


class FrameTree:
    def __init__(self, cache_time: int) -> None:
        self._cache_time = cache_time
        self._caches: dict[str, TimeCache | StaticCache] = {}
        self._known: set[str] = set()

    def insert(self, child: str, stamp: int, link: Link) -> bool:
        """Add a link of a moving frame; False if it is older than the frame's newest by more than the cache time."""
        self._known.update((child, link.parent))
        cache = self._caches.get(child)
        if not isinstance(cache, TimeCache):
            cache = self._caches[child] = TimeCache(self._cache_time)
        return cache.insert(stamp, link)

    def insert_static(self, child: str, link: Link) -> None:
        """Set the link of a static frame in place of all that was known of it."""
        self._known.update((child, link.parent))
        self._caches[child] = StaticCache(link)

    def clear(self) -> None:
        """Forget the moving links; static ones and the names of all frames stay."""
        for cache in self._caches.values():
            cache.clear()

    def lookup(self, target: str, source: str, stamp: int) -> tuple[Rigid, int]:
        """target_from_source and the stamp it holds at. A frame seen from itself need not be known."""
        if target == source:
            return IDENTITY, stamp or self._newest_stamp(source)
        self._require("target_frame", target)
        self._require("source_frame", source)
        stamp = stamp or self._latest_common_stamp(target, source)
        ancestors: dict[str, Rigid] = {}
        gap: ExtrapolationException | None = None
        try:
            for frame, frame_from_source in self._climb(source, stamp):
                if frame == target:
                    return frame_from_source, stamp
                ancestors[frame] = frame_from_source
        except ExtrapolationException as error:
            gap = error  # It does not matter if it lies above the frame where both ways meet.
        try:
            for frame, frame_from_target in self._climb(target, stamp):
                if frame in ancestors:
                    return compose(invert(frame_from_target), ancestors[frame]), stamp
        except ExtrapolationException as error:
            gap = error
        if gap is not None:
            message = f"{gap}, when looking up transform from frame [{source}] to frame [{target}]"
            raise ExtrapolationException(message)
        raise self._not_connected(target, source)

    def lookup_full(
        self, target: str, target_stamp: int, source: str, source_stamp: int, fixed: str
    ) -> tuple[Rigid, int]:
        """target (at its stamp) from source (at its own), by way of a frame that did not move in between."""
        for argument, frame in (("target_frame", target), ("source_frame", source), ("fixed_frame", fixed)):
            self._require(argument, frame)
        fixed_from_source, _ = self.lookup(fixed, source, source_stamp)
        target_from_fixed, stamp = self.lookup(target, fixed, target_stamp)
        return compose(target_from_fixed, fixed_from_source), stamp

    def describe(self) -> str:
        lines = []
        for frame, cache in self._caches.items():
            newest = cache.newest()
            lines.append(f"Frame {frame} exists with parent {newest[1] if newest else 'NO_PARENT'}.\n")
        return "".join(lines)

    def _require(self, argument: str, frame: str) -> None:
        if not frame or frame.startswith("/"):
            rule = "start with a '/'" if frame else "be empty"
            raise InvalidArgumentException(
                f'Invalid argument "{frame}" passed to lookupTransform argument {argument} - '
                f"in tf2 frame_ids cannot {rule}"
            )
        if frame not in self._known:
            raise LookupException(f'"{frame}" passed to lookupTransform argument {argument} does not exist. ')

    def _climb(self, start: str, stamp: int) -> Iterator[tuple[str, Rigid]]:
        """`start` and its ancestors, each with ancestor_from_start."""
        frame, frame_from_start = start, IDENTITY
        for _ in range(_MAXIMUM_DEPTH):
            yield frame, frame_from_start
            cache = self._caches.get(frame)
            if cache is None:
                return
            frame, parent_from_child = cache.at(stamp)
            frame_from_start = compose(parent_from_child, frame_from_start)
        raise self._loop()

    def _latest_common_stamp(self, target: str, source: str) -> int:
        """0 if every link between the frames is static."""
        ancestors: dict[str, int] = {}
        for frame, common in self._climb_newest(source):
            ancestors[frame] = common
            if frame == target:
                break
        for frame, common in self._climb_newest(target):
            if frame in ancestors:
                common = min(common, ancestors[frame])
                return 0 if common == _UNLIMITED else common
        raise self._not_connected(target, source)

    def _climb_newest(self, start: str) -> Iterator[tuple[str, int]]:
        """`start` and its newest ancestors, each with the latest common stamp of the moving links up to there."""
        frame, common = start, _UNLIMITED
        for _ in range(_MAXIMUM_DEPTH):
            yield frame, common
            cache = self._caches.get(frame)
            newest = cache.newest() if cache is not None else None
            if newest is None:
                return
            stamp, frame = newest
            common = min(common, stamp or _UNLIMITED)
        raise self._loop()

    def _newest_stamp(self, frame: str) -> int:
        cache = self._caches.get(frame)
        newest = cache.newest() if cache is not None else None
        return newest[0] if newest else 0

    def _not_connected(self, target: str, source: str) -> ConnectivityException:
        return ConnectivityException(
            f"Could not find a connection between '{target}' and '{source}' because they are not part of the "
            "same tree. Tf has two or more unconnected trees."
        )

    def _loop(self) -> LookupException:
        return LookupException(f"The tf tree is invalid because it contains a loop.\n{self.describe()}")
