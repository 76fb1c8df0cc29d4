"""The dense loss of the perspective head by hand: one location, one object, one thing wrong at a time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bevformer_ros.model.config import PerspectiveHeadConfig
from bevformer_ros.model.perspective_head import PerspectiveHead, PerspectiveLevel
from bevformer_ros.training.config import PerspectiveLossConfig
from bevformer_ros.training.perspective_loss import PerspectiveLoss, box_corners, giou_loss, perspective_loss
from bevformer_ros.training.perspective_targets import NO_ATTRIBUTE, PerspectiveTruth

# With this focal length (both ways) the raw depth is in metres.
FOCAL_LENGTH = 500 * math.sqrt(2)
CLASSES = 2
CONFIG = PerspectiveLossConfig(size_ranges=((-1, math.inf),), center_radius=0.5)


def head_config(levels: int = 1) -> PerspectiveHeadConfig:
    return PerspectiveHeadConfig(
        strides=(8, 16)[:levels],
        tower_depth=1,
        depth_means=(10.0,) * levels,
        depth_deviations=(1.0,) * levels,
        canonical_sizes=((1.0, 1.0, 1.0), (4.0, 2.0, 1.0)),
    )


def camera(images: int = 1) -> Tensor:
    """Looks along the pixel (8, 8)."""
    matrix = torch.tensor([[FOCAL_LENGTH, 0, 8], [0, FOCAL_LENGTH, 8], [0, 0, 1]])
    return matrix.expand(images, 3, 3)


def truth(**changes: Tensor) -> PerspectiveTruth:
    """An object of class 1 on the optical axis, 10 m away, that one location sees."""
    perfect = PerspectiveTruth(
        boxes2d=torch.tensor([[0.0, 0.0, 16.0, 16.0]]),
        labels=torch.tensor([1]),
        centers=torch.tensor([[0.0, 0.0, 10.0]]),
        sizes=torch.tensor([[4.0, 2.0, 1.0]]),
        rotations=torch.eye(3)[None],
        attributes=torch.tensor([2]),
        speeds=torch.tensor([3.0]),
    )
    return perfect._replace(**changes)


def nothing() -> PerspectiveTruth:
    return PerspectiveTruth(*(part[:0] for part in truth()))


def perfect_level() -> PerspectiveLevel:
    """Raw outputs (1, channels, 2, 2) that are right for `truth`; class 0 says something else."""

    def channels(*values: float) -> Tensor:
        return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1).repeat(1, 1, 2, 2)

    return PerspectiveLevel(
        class_logits=channels(0, 0),
        box2d=channels(8, 8, 8, 8),
        centerness=channels(0),
        quaternions=channels(7, 2, 7, 0, 7, 0, 7, 0),  # components outermost: class 1 has 2, 0, 0, 0
        center_offsets=channels(7, 0, 7, 0),
        depths=channels(7, 10),
        sizes=channels(7, 0, 7, 0, 7, 0),
        confidences=channels(7, 0),
        attributes=channels(0, 0, 0),
        speeds=channels(3),
    )


def loss_of(level: PerspectiveLevel, objects: PerspectiveTruth) -> PerspectiveLoss:
    return perspective_loss([level], [objects], camera(), head_config(), CONFIG)


def test_no_objects() -> None:
    level = PerspectiveLevel(*(values.requires_grad_() for values in perfect_level()))
    loss = loss_of(level, nothing())
    loss.total.backward()
    assert loss.classes.item() == pytest.approx(8 * 0.75 * 0.25 * math.log(2))
    assert all(value.item() == 0 for value in loss._replace(classes=torch.tensor(0.0)))
    for name, values in level._asdict().items():
        assert values.grad is not None and values.grad.isfinite().all(), name


def test_perfect_prediction() -> None:
    loss = loss_of(perfect_level(), truth())
    assert loss.classes.item() == pytest.approx((7 * 0.75 + 0.25) * 0.25 * math.log(2))
    assert loss.centerness.item() == pytest.approx(math.log(2))  # the target is 1
    assert loss.confidences.item() == pytest.approx(math.log(2), rel=1e-5)  # and so is this
    assert loss.attributes.item() == pytest.approx(0.2 * math.log(3))
    for name in ("boxes2d", "rotations", "centers", "depths", "sizes", "speeds"):
        assert getattr(loss, name).item() == pytest.approx(0, abs=1e-6), name


def test_one_metre_too_near_is_the_fault_of_depth_alone() -> None:
    loss = loss_of(perfect_level(), truth(centers=torch.tensor([[0.0, 0.0, 11.0]])))
    assert loss.depths.item() == pytest.approx(
        2 * (1 - 0.025) / 3, rel=1e-5
    )  # one of three coordinates of every corner
    for name in ("rotations", "centers", "sizes"):
        assert getattr(loss, name).item() == pytest.approx(0, abs=1e-6), name


def test_confidence_learns_the_mean_distance_of_the_corners() -> None:
    level = perfect_level()
    level.confidences[:, 1] = 2.0
    loss = loss_of(level, truth(centers=torch.tensor([[0.0, 0.0, 11.0]])))
    target = math.exp(-1 / 3)
    expected = -target * math.log(1 / (1 + math.exp(-2))) - (1 - target) * math.log(1 / (1 + math.exp(2)))
    assert loss.confidences.item() == pytest.approx(expected, rel=1e-4)


def test_a_small_distance_of_the_corners_is_squared_and_not_scaled() -> None:
    loss = loss_of(perfect_level(), truth(centers=torch.tensor([[0.0, 0.0, 10.04]])))
    assert loss.depths.item() == pytest.approx(2 * 0.5 * 0.04**2 / 3, rel=1e-3)


def test_half_a_turn_around_the_length() -> None:
    rotations = torch.diag(torch.tensor([1.0, -1.0, -1.0]))[None]
    loss = loss_of(perfect_level(), truth(rotations=rotations))
    assert loss.rotations.item() == pytest.approx(2 * ((2 - 0.025) + (1 - 0.025)) / 3)  # width 2 and height 1 m
    assert loss.centers.item() == pytest.approx(0, abs=1e-6)


def test_one_metre_too_short() -> None:
    loss = loss_of(perfect_level(), truth(sizes=torch.tensor([[5.0, 2.0, 1.0]])))
    assert loss.sizes.item() == pytest.approx(2 * (0.5 - 0.025) / 3)


def test_projected_centre_off_by_a_tenth_of_a_radian() -> None:
    level = perfect_level()
    level.center_offsets[:, 1] = 0.1 * FOCAL_LENGTH
    loss = loss_of(level, truth())
    assert loss.centers.item() == pytest.approx(2 * (1 - 0.025) / 3, rel=1e-4)  # 1 m aside at 10 m
    assert loss.depths.item() == pytest.approx(0, abs=1e-6)


def test_unknown_attribute_and_speed_cost_nothing() -> None:
    loss = loss_of(perfect_level(), truth(attributes=torch.tensor([NO_ATTRIBUTE]), speeds=torch.tensor([math.nan])))
    assert loss.attributes.item() == loss.speeds.item() == 0
    assert loss.total.isfinite()


def test_speed() -> None:
    loss = loss_of(perfect_level(), truth(speeds=torch.tensor([5.0])))
    assert loss.speeds.item() == pytest.approx(0.2 * (2 - 0.025))


def test_every_parameter_of_the_head_learns() -> None:
    torch.manual_seed(0)
    config = head_config(levels=2)
    head = PerspectiveHead(config, channels=8)
    features = [torch.randn(2, 8, 8, 8), torch.randn(2, 8, 4, 4)]
    ranges = PerspectiveLossConfig(size_ranges=((-1, math.inf), (-1, math.inf)))
    seen_by_both = truth(boxes2d=torch.tensor([[0.0, 0.0, 60.0, 60.0]]))
    loss = perspective_loss(head(features), [seen_by_both, nothing()], camera(2), config, ranges)
    loss.total.backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("sides", "target", "expected"),
    [
        ([1, 1, 1, 1], [1, 1, 1, 1], 0.0),
        ([1, 1, 1, 1], [2, 2, 2, 2], 1 - 5 / 17),  # overlap 4, union = hull = 16
        ([2, 1, 2, 1], [1, 2, 1, 2], 1 - 5 / 13 + 4 / 16),  # a cross: overlap 4, union 12, hull 16
    ],
)
def test_giou_loss(sides: list[float], target: list[float], expected: float) -> None:
    loss = giou_loss(torch.tensor([sides]).float(), torch.tensor([target]).float())
    assert loss.item() == pytest.approx(expected)


def test_box_corners() -> None:
    quarter_turn = torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])
    corners = box_corners(torch.tensor([[10.0, 0.0, 0.0]]), torch.tensor([[4.0, 2.0, 1.0]]), quarter_turn)
    assert corners.shape == (1, 8, 3)
    assert corners[0].amin(0).tolist() == [9.0, -2.0, -0.5]
    assert corners[0].amax(0).tolist() == [11.0, 2.0, 0.5]


def test_images_must_agree() -> None:
    with pytest.raises(ValueError, match="must be those of 1 images, got 2, 1"):
        perspective_loss([perfect_level()], [truth(), truth()], camera(), head_config(), CONFIG)
