"""Files and folders that appear when they are whole."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from bevformer_ros.unfinished import partial_path, written_whole


def entries(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_an_empty_folder(tmp_path):
    with written_whole(tmp_path / "new" / "folder") as partial:
        partial.mkdir()
        assert entries(tmp_path / "new") == ["folder.partial"]
    assert entries(tmp_path / "new") == ["folder"]


def test_a_file_is_replaced_at_the_end_alone(tmp_path):
    file = tmp_path / "file.json"
    file.write_text("old", encoding="utf-8")
    with written_whole(file) as partial:
        partial.write_text("new", encoding="utf-8")
        assert file.read_text(encoding="utf-8") == "old"
    assert file.read_text(encoding="utf-8") == "new"
    assert entries(tmp_path) == ["file.json"]


def test_what_broke_off_keeps_its_other_name_until_the_next_try(tmp_path):
    folder = tmp_path / "folder"

    def write(number: int) -> None:
        with written_whole(folder) as partial:
            partial.mkdir()
            (partial / str(number)).touch()
            if number == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(1)
    assert entries(tmp_path) == ["folder.partial"]
    write(2)
    assert entries(tmp_path) == ["folder"]
    assert entries(folder) == ["2"]


def test_an_error_of_the_disk_names_the_place(tmp_path):
    file = tmp_path / "file"
    with pytest.raises(OSError, match=rf"No space left on device: '{partial_path(file)}'"), written_whole(file):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(FileNotFoundError, match="'other'"), written_whole(file):
        raise FileNotFoundError(errno.ENOENT, "No such file", "other")
