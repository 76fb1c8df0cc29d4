import numpy as np
import pytest

from bevformer_ros.taxonomy import ATTRIBUTE_NAMES, CLASS_ID, CLASS_NAMES, CLASSES


def test_the_class_order_is_that_of_the_released_weights():
    assert CLASS_NAMES == (
        "barrier", "bicycle", "bus", "car", "construction_vehicle",
        "motorcycle", "pedestrian", "traffic_cone", "trailer", "truck",
    )  # fmt: skip
    assert [CLASS_ID[name] for name in CLASS_NAMES] == list(range(10))


def test_every_attribute_belongs_to_a_class_and_no_other_is_named():
    assert {attribute for entry in CLASSES for attribute in entry.attributes} == set(ATTRIBUTE_NAMES)


def test_vehicles_are_longer_than_wide():
    for entry in CLASSES:
        length, width, _ = entry.canonical_size
        assert length > width or entry.name == "barrier"


# Linear RGB as complete dichromats see it (Machado, Oliveira and Fernandes 2009, severity 1).
VISIONS = {
    "normal": np.eye(3),
    "no red cones": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green cones": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "no blue cones": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def oklab(linear_rgb):
    """(n, 3) in the space where distances are about as large as they look (Ottosson 2020)."""
    cones = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
             [0.0883024619, 0.2817188376, 0.6299787005]]  # fmt: skip
    opponents = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
                 [0.0259040371, 0.7827717662, -0.8086757660]]  # fmt: skip
    return np.cbrt(np.clip(linear_rgb, 0, 1) @ np.transpose(cones)) @ np.transpose(opponents)


@pytest.mark.parametrize("vision", VISIONS)
def test_any_two_class_colours_can_be_told_apart(vision):
    """A just noticeable difference is about 0.02; the former colours came down to 0.01."""
    encoded = np.array([entry.colour for entry in CLASSES]) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    seen = oklab(linear @ np.transpose(VISIONS[vision]))
    apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1)[np.triu_indices(len(CLASSES), 1)]
    assert apart.min() > 0.13
