"""Names of other detectors' classes."""

import pytest

from bevformer_ros.class_map import ClassMap
from bevformer_ros.config import from_dict
from bevformer_ros.taxonomy import CLASS_NAMES


def test_without_lists_every_class_is_its_own():
    assert [ClassMap().ours(name) for name in CLASS_NAMES] == list(CLASS_NAMES)


def test_other_names_and_what_is_left_out():
    names = from_dict(ClassMap, {"car": ["van", "3"], "ignore": ["animal", "trailer"]})
    assert [names.ours(name) for name in ("van", "3", "car", "animal", "trailer")] == ["car", "car", "car", None, None]


def test_what_is_refused():
    with pytest.raises(ValueError, match="class 'tram' stands in no list"):
        ClassMap().ours("tram")
    with pytest.raises(ValueError, match="van stands in more than one list"):
        ClassMap(car=("van",), truck=("van",))
    with pytest.raises(ValueError, match="unknown key 'tram'"):
        from_dict(ClassMap, {"tram": ["tram"]})
