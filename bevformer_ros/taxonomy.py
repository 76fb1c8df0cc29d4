"""What can be detected: the ten nuScenes detection classes, in the order of the official BEVFormer v2 weights.

Class ranges and attribute names are those of the nuScenes detection benchmark (configuration cvpr_2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ATTRIBUTE_NAMES = (
    "cycle.with_rider",
    "cycle.without_rider",
    "pedestrian.moving",
    "pedestrian.standing",
    "pedestrian.sitting_lying_down",
    "vehicle.moving",
    "vehicle.parked",
    "vehicle.stopped",
)

NO_ATTRIBUTE = -1


@dataclass(frozen=True)
class ObjectClass:
    """One detection class.

    colour: RGB, 0..255, the same in every picture, marker and report; the ten can be told apart with any colour
    vision (test_taxonomy.py measures how far apart they lie). canonical_size: mean length, width, height in metres
    over nuScenes (the anchor sizes of the official perspective head). evaluation_range: metres from the ego, beyond
    which the benchmark ignores the class. attributes: names it may carry, empty where the benchmark defines none.
    """

    name: str
    colour: tuple[int, int, int]
    canonical_size: tuple[float, float, float]
    evaluation_range: float
    attributes: tuple[str, ...]


_CYCLE = ("cycle.with_rider", "cycle.without_rider")
_PEDESTRIAN = ("pedestrian.moving", "pedestrian.standing", "pedestrian.sitting_lying_down")
_VEHICLE = ("vehicle.moving", "vehicle.parked", "vehicle.stopped")

CLASSES = (
    ObjectClass("barrier", (163, 113, 140), (0.5062202, 2.3524184, 1.0413622), 30.0, ()),
    ObjectClass("bicycle", (136, 33, 159), (1.7016163, 0.61416006, 1.3054738), 40.0, _CYCLE),
    ObjectClass("bus", (235, 244, 15), (10.725025, 2.9139307, 3.2832346), 50.0, _VEHICLE),
    ObjectClass("car", (255, 66, 14), (4.641267, 1.9751819, 1.74352), 50.0, _VEHICLE),
    ObjectClass("construction_vehicle", (235, 180, 122), (6.565072, 2.772134, 3.2474296), 50.0, _VEHICLE),
    ObjectClass("motorcycle", (172, 6, 26), (2.138673, 0.7800532, 1.4437162), 40.0, _CYCLE),
    ObjectClass("pedestrian", (4, 141, 234), (0.7181772, 0.6667362, 1.7616143), 40.0, _PEDESTRIAN),
    ObjectClass("traffic_cone", (111, 255, 244), (0.4027083, 0.40246472, 1.0084083), 30.0, ()),
    ObjectClass("trailer", (15, 34, 255), (12.8197, 3.0059454, 4.1213827), 50.0, _VEHICLE),
    ObjectClass("truck", (173, 183, 255), (6.9310856, 2.4986045, 2.8382742), 50.0, _VEHICLE),
)

CLASS_NAMES = tuple(entry.name for entry in CLASSES)
CLASS_ID = {name: index for index, name in enumerate(CLASS_NAMES)}


class UnknownClassError(ValueError):
    """A class of another taxonomy, of which nobody has said what it is here."""


ATTRIBUTE_ID = {name: index for index, name in enumerate(ATTRIBUTE_NAMES)}


def one_per_class(values: float | Sequence[float]) -> tuple[float, ...]:
    """A number for each class in their order, from one for all or from one for each. Raises ValueError for others."""
    numbers = tuple(values) if isinstance(values, Sequence) else (values,) * len(CLASSES)
    if len(numbers) != len(CLASSES) or not all(type(number) in (int, float) for number in numbers):
        raise ValueError(f"{values!r} given, expected one number or {len(CLASSES)}: {', '.join(CLASS_NAMES)}")
    return tuple(map(float, numbers))
