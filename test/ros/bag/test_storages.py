"""Bags that miss parts are opened as far as they go."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("rosbags", reason="needs rosbags: source .venv/bin/ros-activate")

from bevformer_ros.ros.bag.files import BagReader, BagWriter, deserialize
from bevformer_ros.ros.messages import CameraInfo


@pytest.fixture(params=["mcap", "sqlite3"])
def bag(request, tmp_path) -> Path:
    return written(tmp_path / "bag", request.param, range(5))


def written(path: Path, storage: str, numbers: range) -> Path:
    with BagWriter(path, storage) as writer:
        for number in numbers:
            writer.write("/info", CameraInfo(height=number), number)
    return path


def numbers(path: Path) -> list[int]:
    with BagReader(path) as reader:
        return [deserialize(entry).height for entry in reader.messages()]


def test_an_empty_folder_is_no_bag(tmp_path):
    with pytest.raises(ValueError, match=r"is no bag: it has no metadata.yaml, nor a file that ends in .mcap or .db3"):
        BagReader(tmp_path)


@pytest.mark.parametrize("content", [None, "", "{", "rosbag2_bagfile_information: 3", "[1, 2]"])
def test_without_readable_metadata_the_files_are_read(bag, content, caplog):
    metadata = bag / "metadata.yaml"
    metadata.unlink()
    if content is not None:
        metadata.write_text(content, encoding="utf-8")
    assert numbers(bag) == [0, 1, 2, 3, 4]
    assert str(bag) in caplog.text


def test_several_files_are_read_as_one(tmp_path, caplog):
    """As of a recorder that splits its bag and was killed."""
    first, second = (
        written(tmp_path / name, "mcap", numbers) for name, numbers in (("a", range(5)), ("b", range(5, 9)))
    )
    folder = tmp_path / "split"
    folder.mkdir()
    for file in (first / "a.mcap", second / "b.mcap"):
        shutil.copy(file, folder)
    assert numbers(folder) == list(range(9))
    with BagReader(folder) as reader:
        assert reader.topics["/info"].message_count == reader.message_count == 9
        assert (reader.start_ns, reader.end_ns) == (0, 8)
    (folder / "b.mcap").write_bytes(b"")
    assert numbers(folder) == list(range(5))
    assert "b.mcap holds no readable message" in caplog.text


def test_a_file_that_the_metadata_names_is_missing(bag):
    for file in bag.glob("bag.*"):
        file.unlink()
    with pytest.raises(ValueError, match="is damaged, its files are read one by one"):
        BagReader(bag).__enter__()


def test_a_broken_database_is_a_line(bag):
    for file in bag.glob("*.db3"):
        file.write_bytes(file.read_bytes()[:5000] + b"?" * 3000)
        with pytest.raises(ValueError, match="cannot be read"):
            numbers(bag)
