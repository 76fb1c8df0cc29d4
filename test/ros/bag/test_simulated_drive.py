"""A simulated drive as a bag: complete, in order, and its truth fits its own tf."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 and rosbags: source .venv/bin/ros-activate")


from bevformer_ros import geometry
from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.resources import share_directory
from bevformer_ros.ros.bag.files import BagReader, deserialize
from bevformer_ros.ros.bag.recorded_cameras import recorded_cameras
from bevformer_ros.ros.bag.simulated_drive import cameras_of, simulate
from bevformer_ros.ros.conversions import detections_from_messages, stamp_to_ns
from bevformer_ros.ros.ego_motion import EgoMotion, StampedFrame
from bevformer_ros.ros.image_decoding import decode_image
from bevformer_ros.ros.topics import TRUTH
from bevformer_ros.ros.transform_tree import TransformTree
from bevformer_ros.simulation.drive import Drive
from bevformer_ros.simulation.observe import observe
from bevformer_ros.simulation.rig import BASE_FROM_LIDAR, surround_rig
from bevformer_ros.simulation.sensor import SensorConfig
from bevformer_ros.simulation.world import World

RIGS = share_directory() / "config" / "rigs"
DRIVE = Drive(seed=2, seconds=0.6, rate=5.0, size=(160, 90))


def read(path: Path) -> list:
    with BagReader(path) as bag:
        return [(entry, deserialize(entry)) for entry in bag.messages()]


@pytest.fixture(scope="module", params=["nuscenes.yaml", "nuscenes_compressed.yaml"])
def rig(request):
    return load_yaml(RigConfig, RIGS / request.param)


@pytest.fixture(scope="module")
def messages(rig, tmp_path_factory):
    path = tmp_path_factory.mktemp("bags") / "bag"
    simulate(path, rig, DRIVE)
    return read(path)


@pytest.fixture(scope="module")
def transforms(messages):
    filled = TransformTree()
    for entry, message in messages:
        for transform in getattr(message, "transforms", []):
            (filled.add_static if entry.topic == "/tf_static" else filled.add)(transform)
    return filled


def test_every_topic_is_complete_and_in_order(rig, messages):
    stamps = [entry.stamp_ns for entry, _ in messages]
    assert stamps == sorted(stamps)
    topics = [entry.topic for entry, _ in messages]
    for camera in rig.cameras:
        assert topics.count(camera.image_topic) == topics.count(camera.camera_info_topic) == 3
    assert topics.count(TRUTH.boxes) == topics.count(TRUTH.kinematics) == 3
    assert topics.count("/tf_static") == 1
    assert topics.index("/tf_static") == 0
    assert "/clock" not in topics
    assert topics[-1] == "/tf"


def test_stamps_and_images(rig, messages):
    world = World.make(2, (DRIVE.reference_stamps[-1] - DRIVE.reference_stamps[0]) / 1e9 + 1.5)
    by_topic = {}
    for entry, message in messages:
        by_topic.setdefault(entry.topic, []).append(message)
    simulated = surround_rig(*DRIVE.size)
    expected = observe(world, simulated, BASE_FROM_LIDAR, DRIVE.reference_stamps[1]).frame
    for camera, config, truth in zip(simulated, rig.cameras, expected.cameras, strict=True):
        message = by_topic[config.image_topic][1]
        assert stamp_to_ns(message.header.stamp) == DRIVE.reference_stamps[1] + camera.exposure_offset_ns
        assert by_topic[config.camera_info_topic][1].header == message.header
        difference = np.abs(decode_image(message).astype(int) - truth.image)
        assert difference.max() == 0 if not config.compressed else difference.mean() < 8


def test_tf_and_truth_agree_with_the_world(rig, messages, transforms):
    stamp = DRIVE.reference_stamps[1]
    world = World.make(2, (DRIVE.reference_stamps[-1] - DRIVE.reference_stamps[0]) / 1e9 + 1.5)
    simulated = surround_rig(*DRIVE.size)
    observation = observe(world, simulated, BASE_FROM_LIDAR, stamp)
    cameras = [StampedFrame(camera.name, camera.stamp_ns) for camera in observation.frame.cameras]
    poses = EgoMotion(transforms, rig).poses(stamp, cameras)
    for found, camera in zip(poses.camera_from_bev, observation.frame.cameras, strict=True):
        np.testing.assert_allclose(found, camera.camera_from_bev, atol=2e-3)  # tf interpolates between poses
    boxes, kinematics = (
        next(message for entry, message in messages if entry.topic == topic and entry.stamp_ns == stamp)
        for topic in (TRUTH.boxes, TRUTH.kinematics)
    )
    assert [box.id for box in boxes.detections] == [str(identity) for identity in observation.object_ids]
    truth = detections_from_messages(boxes, kinematics).transformed(geometry.invert(BASE_FROM_LIDAR))
    np.testing.assert_allclose(truth.centers, observation.truth.centers, atol=1e-9)
    np.testing.assert_allclose(truth.velocities, observation.truth.velocities, atol=1e-9)
    np.testing.assert_array_equal(truth.attributes, observation.truth.attributes)
    assert [entry.visibility for entry in kinematics.detections] == observation.visibility.tolist()
    world_from_base = transforms.look_up(rig.fixed_frame, rig.base_frame, stamp)
    np.testing.assert_allclose(world_from_base, world.world_from_base(stamp), atol=2e-3)


def test_a_drive_is_repeatable(tmp_path):
    rig = load_yaml(RigConfig, RIGS / "nuscenes_compressed.yaml")
    short = replace(DRIVE, seconds=0.2)
    for name in ("first", "second"):
        simulate(tmp_path / name, rig, short, "sqlite3")
    first, second = (
        [(entry.topic, entry.stamp_ns, message) for entry, message in read(tmp_path / name)]
        for name in ("first", "second")
    )
    assert first == second  # not the bytes: rclpy leaves those between aligned fields as memory had them


def test_a_calibration_that_is_off_shows_in_tf_and_not_in_the_images(tmp_path, rig, messages):
    simulate(tmp_path / "off", rig, replace(DRIVE, sensor=SensorConfig(rotation=1.0)))
    exact, off = (dict_of_first(entries) for entries in (messages, read(tmp_path / "off")))
    assert exact["/tf_static"] != off["/tf_static"]
    assert exact[rig.cameras[0].image_topic] == off[rig.cameras[0].image_topic]


def dict_of_first(entries):
    """The first message of each topic."""
    return {entry.topic: message for entry, message in reversed(entries)}


def test_refusals(tmp_path):
    rig = load_yaml(RigConfig, RIGS / "nuscenes.yaml")
    stranger = replace(rig.cameras[0], name="CAM_ROOF", image_topic="/roof", camera_info_topic="/roof_info")
    with pytest.raises(ValueError, match="no camera CAM_ROOF"):
        simulate(tmp_path / "bag", replace(rig, cameras=(*rig.cameras, stranger)), DRIVE)
    with pytest.raises(ValueError, match="rate is 0"):
        Drive(rate=0)


def test_the_cameras_of_a_rig_may_be_its_own(tmp_path):
    """A fisheye from the YAML: what CameraInfo and tf of its bag say makes the same camera again."""
    fisheyes = load_yaml(RigConfig, RIGS / "nuscenes_fisheye.yaml")
    one = fisheyes.cameras[1]
    small = replace(one.simulated, size=(160, 90), focal_length=48.0, principal_point=(80.5, 49.5))
    rig = replace(fisheyes, cameras=(replace(one, simulated=small),), reference_camera=one.name)
    simulate(tmp_path / "bag", rig, replace(DRIVE, seconds=0.2))
    (wanted,) = cameras_of(rig, DRIVE.size)
    (found,) = recorded_cameras(tmp_path / "bag", rig)
    assert (wanted.lens.model, wanted.width, wanted.height) == ("equidistant", 160, 90)
    for name in ("name", "width", "height", "exposure_offset_ns", "lens", "field_of_view_deg"):
        assert getattr(found, name) == getattr(wanted, name), name
    np.testing.assert_allclose(found.intrinsics, wanted.intrinsics)
    np.testing.assert_allclose(found.base_from_camera, wanted.base_from_camera, atol=1e-9)
    with pytest.raises(ValueError, match="has no message on /nowhere"):
        recorded_cameras(tmp_path / "bag", replace(rig, cameras=(replace(rig.cameras[0], image_topic="/nowhere"),)))


def test_a_camera_that_nobody_describes_is_refused():
    rig = load_yaml(RigConfig, RIGS / "nuscenes.yaml")
    strange = replace(rig, cameras=(replace(rig.cameras[0], name="roof"),), reference_camera="roof")
    with pytest.raises(ValueError, match="no camera roof; .* or describe its own under simulated"):
        cameras_of(strange, DRIVE.size)
