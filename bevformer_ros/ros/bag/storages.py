"""The files of a bag, opened as far as they go: whole ones by rosbags, torn ones record by record."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import Protocol

from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader

from bevformer_ros.ros.bag.torn_mcap import TornMcap
from bevformer_ros.unfinished import PARTIAL, partial_path

_METADATA = "metadata.yaml"
_SUFFIXES = (".mcap", ".db3")


class OpenStorage(Protocol):
    """What rosbags' Reader and TornMcap have in common. end_time: one nanosecond after the last message."""

    @property
    def connections(self) -> list[Connection]: ...
    @property
    def message_count(self) -> int: ...
    @property
    def start_time(self) -> int: ...
    @property
    def end_time(self) -> int: ...

    def messages(
        self, connections: Collection[Connection], start: int | None = None, stop: int | None = None
    ) -> Iterator[tuple[Connection, int, bytes]]: ...

    def close(self) -> None: ...


def require_bag(path: Path) -> None:
    """Raises ValueError for what cannot be one."""
    if not path.exists():
        partial = partial_path(path)
        hint = f"; {partial} was left by a run that broke off" if partial.exists() else ""
        raise ValueError(f"{path} is no bag: it does not exist{hint}")
    if path.is_file() and path.suffix not in _SUFFIXES:
        raise ValueError(f"{path} is no bag: expected a folder, or a file that ends in {' or '.join(_SUFFIXES)}")
    if path.is_dir() and not (_folder(path) / _METADATA).is_file() and not _files(path):
        raise ValueError(f"{path} is no bag: it has no {_METADATA}, nor a file that ends in {' or '.join(_SUFFIXES)}")


def require_folder_of_bags(path: Path) -> None:
    """Raises ValueError for a folder that is a bag itself: several cannot become one."""
    if path.is_dir() and ((path / _METADATA).is_file() or _files(path)):
        raise ValueError(f"{path} is a bag, expected a folder for several; name another, or remove it")


def open_storages(path: Path) -> tuple[list[OpenStorage], list[str]]:
    """And what is wrong with the bag. Raises ValueError where nothing can be read."""
    if path.is_file():
        opened = [_opened(path)]
    elif (_folder(path) / _METADATA).is_file():
        reader = Reader(_folder(path))
        try:
            reader.open()
            return [reader], []
        except Exception as error:  # whatever a reader of damaged bytes comes upon
            damage = f"{path} is damaged, its files are read one by one: {reason_of(error)}"
            opened = [(None, damage), *map(_opened, _files(path))]
    else:
        damage = f"{path} has no {_METADATA}, as if its recording was cut off; its files are read as they are"
        opened = [(None, damage), *map(_opened, _files(path))]
    storages = [storage for storage, _ in opened if storage is not None]
    if not storages:
        raise ValueError("; ".join(damage for _, damage in opened))
    return storages, [damage for _, damage in opened if damage]


def _folder(path: Path) -> Path:
    """Where the files lie: a writer's unfinished folder holds the one that the bag will be."""
    return path / path.stem if path.suffix == PARTIAL else path


def _files(path: Path) -> list[Path]:
    return sorted(file for file in _folder(path).glob("*") if file.suffix in _SUFFIXES)


def _opened(file: Path) -> tuple[OpenStorage | None, str]:
    """None for a file of which nothing can be read; and what is wrong with it."""
    reader = Reader(file)
    try:
        _roll_back(file)
        reader.open()
        return reader, ""
    except Exception as error:  # whatever a reader of damaged bytes comes upon
        if file.suffix != ".mcap":
            return None, f"{file} cannot be read: {reason_of(error)}"
    try:
        torn = TornMcap(file)
    except ValueError as error:
        return None, str(error)
    return torn, torn.damage


def _roll_back(file: Path) -> None:
    """What a writer that was killed had not committed, as SQLite does when it opens the file to write."""
    if file.with_name(f"{file.name}-journal").exists():
        with closing(sqlite3.connect(file)) as database:
            database.execute("SELECT count(*) FROM sqlite_master")


def reason_of(error: Exception) -> str:
    """Its first line."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
