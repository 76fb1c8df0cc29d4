"""Bags: what goes in comes out, in both storages, with types that only this workspace knows."""

import json
import os
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 and rosbags: source .venv/bin/ros-activate")

from bevformer_ros.msg import DetectorStatus, ReasonCount
from rosbags.rosbag2 import Reader
from sensor_msgs.msg import Image
from std_msgs.msg import String
from vision_msgs.msg import Detection3D, Detection3DArray

from bevformer_ros.ros.bag.files import BagReader, BagTopic, BagWriter, deserialize
from bevformer_ros.ros.conversions import header_of
from bevformer_ros.ros.message_bytes import message_class, type_name_of

STORAGES = ("sqlite3", "mcap")


@pytest.mark.parametrize("storage", STORAGES)
def test_an_empty_bag_is_a_bag(tmp_path, storage):
    with BagWriter(tmp_path / "bag", storage):
        pass
    with BagReader(tmp_path / "bag") as bag:
        assert bag.topics == {}
        assert (bag.message_count, bag.start_ns, bag.end_ns) == (0, 0, 0)
        assert list(bag.messages()) == []


@pytest.mark.parametrize("storage", STORAGES)
def test_round_trip(tmp_path, storage):
    image = Image(header=header_of(5, "camera"), height=2, width=1, step=3, encoding="bgr8")
    image.data.frombytes(bytes(range(6)))
    status = DetectorStatus(model="tiny", sets_dropped=[ReasonCount(reason="late tf", count=3)])
    with BagWriter(tmp_path / "bag", storage) as bag:
        bag.add_topic("/latched", "std_msgs/msg/String", latched=True)
        bag.add_topic("/sensor", "sensor_msgs/msg/Image", best_effort=True)
        bag.write("/latched", String(data="once"), 10)
        bag.write("/sensor", image, 20)
        bag.write("/status", status, 30)
        bag.write("/boxes", Detection3DArray(), 40)
        assert bag.message_counts == {"/latched": 1, "/sensor": 1, "/status": 1, "/boxes": 1}

    with BagReader(tmp_path / "bag") as bag:
        assert bag.topics["/latched"] == BagTopic("std_msgs/msg/String", 1, latched=True, best_effort=False)
        assert bag.topics["/sensor"] == BagTopic("sensor_msgs/msg/Image", 1, latched=False, best_effort=True)
        assert (bag.start_ns, bag.end_ns) == (10, 40)
        messages = list(bag.messages())
        assert [(entry.topic, entry.stamp_ns) for entry in messages] == [
            ("/latched", 10),
            ("/sensor", 20),
            ("/status", 30),
            ("/boxes", 40),
        ]
        assert [deserialize(entry) for entry in messages] == [String(data="once"), image, status, Detection3DArray()]
        assert [entry.topic for entry in bag.messages(["/status", "/boxes"], start_ns=35)] == ["/boxes"]
        assert [entry.topic for entry in bag.messages(stop_ns=20)] == ["/latched"]


@pytest.mark.parametrize("storage", STORAGES)
def test_messages_come_in_the_order_of_their_stamps(tmp_path, storage):
    with BagWriter(tmp_path / "bag", storage) as bag:
        for stamp in (30, 10, 20):
            bag.write("/words", String(data=str(stamp)), stamp)
    with BagReader(tmp_path / "bag") as bag:
        assert [deserialize(entry).data for entry in bag.messages()] == ["10", "20", "30"]


@pytest.mark.parametrize("kind", [DetectorStatus, Detection3DArray, Image])
def test_type_hashes_are_those_of_the_installed_messages(tmp_path, kind):
    """Other readers compare the hash; it also shows that the definition stored is complete."""
    with BagWriter(tmp_path / "bag") as bag:
        bag.write("/topic", kind(), 1)
    with Reader(tmp_path / "bag") as reader:
        (connection,) = reader.connections
    package, _, name = connection.msgtype.split("/")
    prefixes = [Path(prefix) for prefix in os.environ["AMENT_PREFIX_PATH"].split(os.pathsep)]
    files = [prefix / "share" / package / "msg" / f"{name}.json" for prefix in prefixes]
    description = json.loads(next(file for file in files if file.is_file()).read_text())
    hashes = {entry["type_name"]: entry["hash_string"] for entry in description["type_hashes"]}
    assert connection.digest == hashes[connection.msgtype]


@pytest.mark.parametrize("storage", STORAGES)
def test_a_bag_that_broke_off_keeps_what_it_has_under_another_name(tmp_path, storage):
    def record(**options: bool) -> None:
        with BagWriter(tmp_path / "bag", storage, **options) as bag:
            bag.write("/words", String(data="kept"), 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record()
    assert [entry.name for entry in tmp_path.iterdir()] == ["bag.partial"]
    with BagReader(tmp_path / "bag.partial") as bag:
        assert [deserialize(entry).data for entry in bag.messages()] == ["kept"]
    with pytest.raises(ValueError, match=r"bag does not exist|bag.partial was left by a run that broke off"):
        BagReader(tmp_path / "bag")
    with pytest.raises(ValueError, match=r"bag.partial holds what an earlier run wrote .* move or remove it"):
        record()
    with pytest.raises(KeyboardInterrupt):
        record(replace_unfinished=True)


def test_messages_that_cannot_be_used_are_counted_and_the_first_is_named(tmp_path, caplog):
    with BagWriter(tmp_path / "bag") as bag:
        bag.write("/images", Image(height=1), 1)
        bag.write_raw("/images", "sensor_msgs/msg/Image", b"\0\1\0\0half", 1_500_000_001)
        bag.write_raw("/images", "sensor_msgs/msg/Image", b"", 1_500_000_002)
        bag.write("/images", Image(height=2), 1_500_000_003)
        bag.write("/words", String(), 1_500_000_004)
    with BagReader(tmp_path / "bag") as bag:
        assert [image.height for _, image in bag.objects({"/images": [Image], "/words": [Image]})] == [1, 2]
        assert bag.unreadable == {"/images": 2, "/words": 1}
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert lines[0].startswith(f"{tmp_path / 'bag'}: a message on /images at 1.5 s, and any like it, is left out")
    assert lines[1].endswith("it is std_msgs/msg/String, expected sensor_msgs/msg/Image")


def test_refusals_name_the_remedy(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(ValueError, match="exists already; remove it"):
        BagWriter(tmp_path / "there")
    with pytest.raises(ValueError, match="'zip', expected one of sqlite3, mcap"):
        BagWriter(tmp_path / "new", "zip")
    with pytest.raises(ValueError, match="is no bag"):
        BagReader(tmp_path / "absent")
    with pytest.raises(ValueError, match="is no bag"):
        BagReader(tmp_path / "there")
    with BagWriter(tmp_path / "bag") as bag:
        bag.write("/words", String(), 1)
        with pytest.raises(ValueError, match=r"carries std_msgs/msg/String, it cannot carry sensor_msgs/msg/Image"):
            bag.write("/words", Image(), 2)
        with pytest.raises(ValueError, match="no definition of nobody_msgs/msg/Thing"):
            bag.add_topic("/thing", "nobody_msgs/msg/Thing")
    with BagReader(tmp_path / "bag") as bag, pytest.raises(ValueError, match="no topic /other; it has /words"):
        list(bag.messages(["/other"]))


def test_type_names():
    assert type_name_of(Image()) == "sensor_msgs/msg/Image"
    assert message_class("bevformer_ros/msg/DetectorStatus") is DetectorStatus
    with pytest.raises(ValueError, match="nobody_msgs/msg/Thing is not installed"):
        message_class("nobody_msgs/msg/Thing")


def test_foxglove_can_read_a_bag_as_it_is(tmp_path):
    """Every message carries its definition (schema ros2msg, encoding cdr), of which a reader needs nothing else."""
    reader = pytest.importorskip("mcap.reader", reason="needs mcap-ros2-support, which `make env` installs")
    decoder = pytest.importorskip("mcap_ros2.decoder")
    boxes = Detection3DArray(header=header_of(5, "base_link"), detections=[Detection3D(id="7")])
    status = DetectorStatus(model="tiny", sets_dropped=[ReasonCount(reason="late tf", count=3)])
    with BagWriter(tmp_path / "bag", "mcap") as bag:
        bag.write("/boxes", boxes, 10)
        bag.write("/status", status, 20)
    (file,) = (tmp_path / "bag").glob("*.mcap")
    with file.open("rb") as stream:
        found = reader.make_reader(stream, decoder_factories=[decoder.DecoderFactory()])
        entries = [
            (schema.name, schema.encoding, channel.message_encoding, message)
            for schema, channel, _, message in found.iter_decoded_messages()
        ]
    assert [entry[:3] for entry in entries] == [
        ("vision_msgs/msg/Detection3DArray", "ros2msg", "cdr"),
        ("bevformer_ros/msg/DetectorStatus", "ros2msg", "cdr"),
    ]
    assert (entries[0][3].header.frame_id, entries[0][3].detections[0].id) == ("base_link", "7")
    assert (entries[1][3].model, entries[1][3].sets_dropped[0].count) == ("tiny", 3)
