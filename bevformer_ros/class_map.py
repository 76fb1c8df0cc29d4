"""Classes of another detector or data set in the words of this package."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from functools import cached_property

from bevformer_ros.taxonomy import CLASS_ID, UnknownClassError


@dataclass(frozen=True)
class ClassMap:
    """For each of our classes the names that it has elsewhere; our own name always counts. ignore: what is left out."""

    barrier: tuple[str, ...] = ()
    bicycle: tuple[str, ...] = ()
    bus: tuple[str, ...] = ()
    car: tuple[str, ...] = ()
    construction_vehicle: tuple[str, ...] = ()
    motorcycle: tuple[str, ...] = ()
    pedestrian: tuple[str, ...] = ()
    traffic_cone: tuple[str, ...] = ()
    trailer: tuple[str, ...] = ()
    truck: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        times = Counter(name for entry in fields(self) for name in getattr(self, entry.name))
        doubled = sorted(name for name, count in times.items() if count > 1)
        if doubled:
            raise ValueError(f"{', '.join(doubled)} stands in more than one list, expected one class for each name")

    @cached_property
    def _ours(self) -> dict[str, str]:
        own = {name: name for name in CLASS_ID}
        return own | {name: entry.name for entry in fields(self) for name in getattr(self, entry.name)}

    def ours(self, name: str) -> str | None:
        """Our class, None for what is ignored. Raises ValueError for a name that stands nowhere."""
        if name not in self._ours:
            raise UnknownClassError(
                f"class {name!r} stands in no list of the class map; add it to a class or to ignore"
            )
        found = self._ours[name]
        return None if found == "ignore" else found
