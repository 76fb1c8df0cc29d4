"""What is known of one child frame: its links to its parent over time, or one link for ever."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import NamedTuple

from tf2_ros.exceptions import ExtrapolationException
from tf2_ros.rigid import Rigid, interpolate


class Link(NamedTuple):
    parent: str
    parent_from_child: Rigid


class TimeCache:
    """Links of a moving frame sorted by stamp (nanoseconds); of equal stamps the later arrival comes last."""

    def __init__(self, cache_time: int) -> None:
        self._cache_time = cache_time
        self._stamps: list[int] = []
        self._links: list[Link] = []

    def insert(self, stamp: int, link: Link) -> bool:
        """False if the link is older than the newest one by more than the cache time.

        An exact repeat is kept once; another link with the same stamp is kept beside the first.
        """
        if self._stamps:
            horizon = self._stamps[-1] - self._cache_time
            expired = bisect_left(self._stamps, horizon)
            del self._stamps[:expired], self._links[:expired]
            if stamp < horizon:
                return False
        after = bisect_right(self._stamps, stamp)
        if link not in self._links[bisect_left(self._stamps, stamp, 0, after) : after]:
            self._stamps.insert(after, stamp)
            self._links.insert(after, link)
        return True

    def at(self, stamp: int) -> Link:
        """The link at `stamp` (0: the newest), interpolated between its neighbours if they share a parent."""
        stamps, links = self._stamps, self._links
        if not stamps:
            raise ExtrapolationException("Lookup would require extrapolation: the buffer holds no data for the frame")
        if stamp in (0, stamps[-1]):
            return links[-1]
        if stamp == stamps[0]:
            return links[0]
        if not stamps[0] < stamp < stamps[-1]:
            raise ExtrapolationException(self._extrapolation_message(stamp))
        newer = bisect_right(stamps, stamp)
        before, after = links[newer - 1], links[newer]
        if before.parent != after.parent:
            return before
        elapsed, span = stamp - stamps[newer - 1], stamps[newer] - stamps[newer - 1]
        return Link(before.parent, interpolate(before.parent_from_child, after.parent_from_child, elapsed / span))

    def newest(self) -> tuple[int, str] | None:
        """Stamp and parent of the newest link, or None while there is none."""
        return (self._stamps[-1], self._links[-1].parent) if self._stamps else None

    def clear(self) -> None:
        self._stamps.clear()
        self._links.clear()

    def _extrapolation_message(self, stamp: int) -> str:
        oldest, newest = self._stamps[0], self._stamps[-1]
        if oldest == newest:
            return (
                f"Lookup would require extrapolation at time {_seconds(stamp)}, "
                f"but only time {_seconds(newest)} is in the buffer"
            )
        if stamp > newest:
            return (
                f"Lookup would require extrapolation into the future.  Requested time {_seconds(stamp)} "
                f"but the latest data is at time {_seconds(newest)}"
            )
        return (
            f"Lookup would require extrapolation into the past.  Requested time {_seconds(stamp)} "
            f"but the earliest data is at time {_seconds(oldest)}"
        )


class StaticCache:
    """The one link of a static frame: true at every time, and kept by `clear`."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def at(self, stamp: int) -> Link:
        return self._link

    def newest(self) -> tuple[int, str]:
        """Stamp 0, which never limits the latest common time."""
        return 0, self._link.parent

    def clear(self) -> None:
        pass


def _seconds(stamp: int) -> str:
    return f"{stamp // 10**9}.{stamp % 10**9:09d}"
