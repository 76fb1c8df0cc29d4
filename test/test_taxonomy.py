from bevformer_ros.taxonomy import ATTRIBUTE_NAMES, CLASS_ID, CLASS_NAMES, CLASSES


def test_the_class_order_is_that_of_the_released_weights():
    assert CLASS_NAMES == (
        "barrier", "bicycle", "bus", "car", "construction_vehicle",
        "motorcycle", "pedestrian", "traffic_cone", "trailer", "truck",
    )  # fmt: skip
    assert [CLASS_ID[name] for name in CLASS_NAMES] == list(range(10))


def test_every_attribute_belongs_to_a_class_and_no_other_is_named():
    assert {attribute for entry in CLASSES for attribute in entry.attributes} == set(ATTRIBUTE_NAMES)


def test_vehicles_are_longer_than_wide_and_colours_can_be_told_apart():
    for entry in CLASSES:
        length, width, _ = entry.canonical_size
        assert length > width or entry.name == "barrier"
    assert len({entry.colour for entry in CLASSES}) == len(CLASSES)
