"""The renderer against projection: what is painted where, and what hides what."""

from dataclasses import replace

import numpy as np
import pytest

from bevformer_ros import geometry
from bevformer_ros.simulation.crowd import Objects
from bevformer_ros.simulation.render import SCENERY, painting_order, render
from bevformer_ros.simulation.rig import surround_rig
from bevformer_ros.simulation.scenery import Scenery
from bevformer_ros.simulation.solids import SCENERY_SOLIDS, solid_of
from bevformer_ros.simulation.view import clip
from bevformer_ros.simulation.world import START_NS, World
from bevformer_ros.taxonomy import ATTRIBUTE_ID, CLASS_ID, CLASS_NAMES, CLASSES

RIG = {camera.name: camera for camera in surround_rig(800, 450)}


def world_with(*placed: tuple[str, float, float, float]) -> World:
    """Only these objects, standing: class name, metres ahead of the ego, metres left of it, heading to the road."""
    world = World.make(seed=1)
    station, lane = float(world.ego.station(0.0)), world.ego.lane
    rider = np.full(len(placed), ATTRIBUTE_ID["cycle.with_rider"], np.int64)
    objects = Objects(
        labels=np.array([CLASS_ID[name] for name, *_ in placed], np.int64),
        sizes=np.array([CLASSES[CLASS_ID[name]].canonical_size for name, *_ in placed]).reshape(-1, 3),
        paths=np.full(len(placed), world.ego.path),
        stations=np.array([station + ahead for _, ahead, _, _ in placed]),
        offsets=np.array([lane + left for _, _, left, _ in placed]),
        directions=np.zeros(len(placed)),
        timetables=np.zeros(len(placed), np.int64),
        headings=np.array([heading for *_, heading in placed]),
        moving=rider,
        resting=rider,
        colours=np.full((len(placed), 3), 200, np.int64),
    )
    nothing = Scenery(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0), np.zeros((0, 3), np.int64), ())
    return replace(world, objects=objects, scenery=nothing)


def projected_corners(world: World, name: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    camera = RIG[name]
    camera_from_world = geometry.invert(world.world_from_base(START_NS) @ camera.base_from_camera)
    corners = world.objects_at(START_NS).corners()[index]
    return geometry.project(camera.intrinsics, geometry.apply(camera_from_world, corners))


def test_an_empty_world_shows_only_scenery():
    picture = render(world_with(), RIG["CAM_FRONT"], START_NS)
    assert (picture.owners == SCENERY).all()
    sky, road = picture.image[5, 400].astype(int), picture.image[440, 400].astype(int)
    assert sky[0] > sky[2] + 40  # blue above
    assert abs(road[0] - road[2]) < 30  # grey below


@pytest.mark.parametrize("class_name", CLASS_NAMES)
@pytest.mark.parametrize(("camera", "ahead", "left"), [("CAM_FRONT", 18.0, 1.5), ("CAM_BACK", -20.0, -2.0)])
def test_painted_pixels_fill_the_projected_box(class_name, camera, ahead, left):
    world = world_with((class_name, ahead, left, 0.5))
    rows, columns = np.nonzero(render(world, RIG[camera], START_NS).owners == 0)
    pixels, depths = projected_corners(world, camera, 0)
    assert depths.min() > 0
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    extent = high - low
    assert columns.min() >= low[0] - 1
    assert columns.max() <= high[0] + 1
    assert rows.min() >= low[1] - 1
    assert rows.max() <= high[1] + 1
    # A box-shaped thing touches the hull; a person or a cone leaves its box's upper corners empty.
    assert columns.max() - columns.min() > 0.6 * extent[0]
    assert rows.max() - rows.min() > 0.85 * extent[1] - 2


def test_a_trailer_covers_its_box_to_the_pixel():
    world = world_with(("trailer", 25.0, 0.0, 0.9))
    rows, columns = np.nonzero(render(world, RIG["CAM_FRONT"], START_NS).owners == 0)
    pixels, _ = projected_corners(world, "CAM_FRONT", 0)
    np.testing.assert_allclose((columns.min(), columns.max()), (pixels[:, 0].min(), pixels[:, 0].max()), atol=1.0)
    assert abs(rows.min() - pixels[:, 1].min()) <= 1.0


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_nearer_thing_hides_the_farther(order):
    things = [("truck", 14.0, 0.0, 0.0), ("car", 26.0, 0.0, 0.0)]
    picture = render(world_with(*(things[index] for index in order)), RIG["CAM_FRONT"], START_NS)
    truck, car = order.index(0), order.index(1)
    world = world_with(*(things[index] for index in order))
    pixels, _ = projected_corners(world, "CAM_FRONT", truck)
    column, row = np.round(pixels.mean(axis=0)).astype(int)
    assert picture.owners[row, column] == truck
    assert (picture.owners == car).sum() < 0.2 * (picture.owners == truck).sum()
    for index in (truck, car):
        alone = render(world_with(things[order[index]]), RIG["CAM_FRONT"], START_NS)
        assert picture.whole[index] == alone.whole[0] == (alone.owners == 0).sum() > 0


def test_a_person_beside_a_long_bus_is_not_hidden_by_it():
    """The bus's middle is farther than the person, its front nearer: distance alone would order them wrongly."""
    world = world_with(("bus", 14.0, 3.0, 0.0), ("pedestrian", 12.0, 1.0, 0.0))
    owners = render(world, RIG["CAM_FRONT"], START_NS).owners
    alone = render(world_with(("pedestrian", 12.0, 1.0, 0.0)), RIG["CAM_FRONT"], START_NS).owners
    assert (owners == 1).sum() == (alone == 0).sum()


def test_a_thing_across_the_near_plane_is_cut_not_mirrored():
    world = world_with(("bus", 4.0, 3.0, 0.0))
    owners = render(world, RIG["CAM_FRONT_LEFT"], START_NS).owners
    assert (owners == 0).mean() > 0.3
    elsewhere = render(world, RIG["CAM_BACK_RIGHT"], START_NS)
    assert (elsewhere.owners == SCENERY).all() and elsewhere.whole.tolist() == [0]


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        ([-1.0, -1.0, -1.0, -1.0], 0),
        ([1.0, 1.0, 1.0, 1.0], 4),
        ([-1.0, 1.0, 1.0, 1.0], 5),
        ([-1.0, -1.0, 1.0, 1.0], 4),
        ([1.0, -1.0, -1.0, -1.0], 3),
    ],
)
def test_clip(inside, expected):
    square = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0]])
    assert len(clip(square, np.array(inside))) == expected


def test_clip_meets_the_edge_where_the_distance_is_zero():
    square = np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0]])
    cut = clip(square, square[:, 0] - 1.0)
    np.testing.assert_allclose(sorted(map(tuple, cut)), [(1, 0), (1, 4), (4, 0), (4, 4)])


@pytest.mark.parametrize(
    ("hidden", "distances", "expected"),
    [
        ([], [], []),
        ([(0, 1)], [1.0, 9.0], [0, 1]),
        ([], [1.0, 9.0, 5.0], [1, 2, 0]),
        ([(0, 1), (1, 2), (2, 0)], [1.0, 9.0, 5.0], [1, 2, 0]),
    ],
)
def test_painting_order(hidden, distances, expected):
    relation = np.zeros((len(distances), len(distances)), bool)
    for before, after in hidden:
        relation[before, after] = True
    assert painting_order(relation, np.array(distances)).tolist() == expected


@pytest.mark.parametrize("attribute", ["cycle.with_rider", "cycle.without_rider"])
@pytest.mark.parametrize("name", [*CLASS_NAMES, *SCENERY_SOLIDS])
def test_solids_fill_their_box_and_their_parts_are_separable(name, attribute):
    solid = SCENERY_SOLIDS.get(name) or solid_of(name, attribute)
    np.testing.assert_allclose(solid.low.min(axis=0), -0.5, atol=0.011)
    np.testing.assert_allclose(solid.high.max(axis=0), 0.5, atol=0.011)
    apart = (solid.high[:, None] <= solid.low[None] + 1e-9).any(-1)
    apart |= apart.T
    np.fill_diagonal(apart, True)
    assert apart.all(), np.argwhere(~apart)
