"""Mcap files without an end or with damage: every message before it is read, and how far is said."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

pytest.importorskip("rosbags", reason="needs rosbags: source .venv/bin/ros-activate")

from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from bevformer_ros.ros.bag.files import BagReader, BagWriter, deserialize
from bevformer_ros.ros.bag.torn_mcap import TornMcap
from bevformer_ros.ros.message_bytes import serialize
from bevformer_ros.ros.message_definitions import typestore_with
from bevformer_ros.ros.messages import CameraInfo

COUNT, TYPE = 60, "sensor_msgs/msg/CameraInfo"
TOPIC, OTHER = "/camera/info", "/other/info"


def info(number: int) -> CameraInfo:
    """Of about 100 kB, so that there are ten to a chunk."""
    return CameraInfo(height=number, d=[random.Random(number).random()] * 12_500)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A finished mcap file."""
    path = tmp_path_factory.mktemp("torn") / "bag"
    with BagWriter(path) as bag:
        bag.add_topic(OTHER, TYPE, latched=True)
        for number in range(COUNT):
            bag.write(TOPIC, info(number), 1_000_000_000 + number * 100_000_000)
    return path / "bag.mcap"


def numbers(path: Path) -> list[int]:
    with BagReader(path) as bag:
        return [deserialize(entry).height for entry in bag.messages([TOPIC])]


def test_a_file_of_which_nothing_is_left_says_so(tmp_path):
    for content, reason in ((b"", "it is no mcap file"), (b"PK zip", "no mcap file"), (b"\x89MCAP0\r\n", "ends")):
        file = tmp_path / "file.mcap"
        file.write_bytes(content)
        with pytest.raises(ValueError, match=rf"file.mcap holds no readable message: .*{reason}.* of {len(content)}$"):
            BagReader(file).__enter__()


@pytest.mark.parametrize("share", [0.3, 0.5, 0.77, 0.98, 0.9999])
def test_a_file_that_was_cut_is_read_up_to_the_cut(whole, tmp_path, share, caplog):
    content = whole.read_bytes()
    file = tmp_path / "cut.mcap"
    file.write_bytes(content[: round(share * len(content))])
    found = numbers(file)
    assert found == list(range(len(found)))
    assert COUNT * share - 2 < len(found) <= COUNT
    assert f"{file} is damaged or unfinished" in caplog.text
    assert f"{len(found)} messages in {(len(found) - 1) / 10:.1f} s" in caplog.text


def test_it_tells_what_a_reader_of_the_whole_tells(whole, tmp_path):
    file = tmp_path / "cut.mcap"
    file.write_bytes(whole.read_bytes()[:-100])
    with BagReader(whole) as ours, BagReader(file) as torn:
        assert (torn.topics, torn.start_ns, torn.end_ns) == (ours.topics, ours.start_ns, ours.end_ns)
        assert list(torn.messages()) == list(ours.messages())
        window = (1_500_000_000, 3_000_000_000)
        assert list(torn.messages([TOPIC], *window)) == list(ours.messages([TOPIC], *window))
        assert (ours.damage, bool(torn.damage)) == ("", True)


def test_zeros_in_the_middle_end_it_there(whole, tmp_path):
    """As a file system leaves them after a loss of power: the index is there, but not what it says."""
    content = bytearray(whole.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2_000_000] = bytes(2_000_000)
    file = tmp_path / "zeros.mcap"
    file.write_bytes(content[:-8])
    found = numbers(file)
    assert 15 < len(found) < 40
    assert found == list(range(len(found)))


def test_compressed_chunks_are_read_too(tmp_path, caplog):
    writer = Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection(TOPIC, TYPE, typestore=typestore_with(TYPE))
        for number in range(COUNT):
            writer.write(connection, number, serialize(info(number)))
    whole = tmp_path / "bag" / "bag.mcap"
    file = tmp_path / "cut.mcap"
    file.write_bytes(whole.read_bytes()[:-100])
    assert numbers(file) == list(range(COUNT))
    spoilt = bytearray(whole.read_bytes())
    spoilt[len(spoilt) // 2] ^= 0xFF  # the index is whole, the compressed bytes of a chunk are not
    whole.write_bytes(spoilt)
    found = numbers(tmp_path / "bag")
    assert 0 < len(found) < COUNT
    assert found == list(range(len(found)))
    assert "is damaged after" in caplog.text


def test_no_damage_is_more_than_a_line(whole, tmp_path):
    """Bytes changed at random places, a hundred times."""
    dice, content = random.Random(3), whole.read_bytes()
    file = tmp_path / "random.mcap"
    for _ in range(100):
        spoilt = bytearray(content)
        for _ in range(dice.randrange(1, 30)):
            spoilt[dice.randrange(len(spoilt))] = dice.randrange(256)
        file.write_bytes(spoilt[: dice.randrange(len(spoilt))])
        try:
            torn = TornMcap(file)
        except ValueError:
            continue
        stamps = [stamp for _, stamp, _ in torn.messages(torn.connections)]
        assert stamps == sorted(stamps)
        torn.close()
