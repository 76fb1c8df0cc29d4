"""An mcap file that its writer could not finish, or whose end was lost: read record by record up to the damage.

The format: https://mcap.dev/spec. A file is a magic number and records, each an opcode, a length and so many bytes;
chunks are records that hold further records, compressed or not. The index at its end is what a torn file lacks.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Collection, Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

from rosbags.interfaces import Connection, ConnectionExtRosbag2
from rosbags.rosbag2.storage_mcap import Schema, decompress, get_msgdef, get_qos

_MAGIC = b"\x89MCAP0\r\n"
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 0x03, 0x04, 0x05, 0x06, 0x0F
_KNOWN = range(0x01, 0x10)
_HEAD = struct.Struct("<BQ")  # of a record: opcode, length
_MESSAGE_HEAD = struct.Struct("<HIQQ")  # channel, sequence number, recorded, published
_CHUNK_HEAD = struct.Struct("<QQQI")  # first and last stamp, size of its content, checksum
_CHUNKS_IN_MEMORY = 8


class _Record(NamedTuple):
    """begin: where its content begins, in the file or in a chunk's content. cut: whether the file ends within it."""

    opcode: int
    begin: int
    content: bytes
    cut: bool = False


class _Place(NamedTuple):
    """Of a message's data. chunk: where its chunk begins in the file, -1 for a message outside of chunks."""

    stamp_ns: int
    channel: int
    chunk: int
    begin: int
    size: int


class TornMcap:
    """Offers what a rosbags Reader does. damage: how far it could be read and why no further."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError for a file that holds no message before the damage."""
        self._file: BinaryIO = path.open("rb")
        self._schemas: dict[int, Schema] = {}
        self._channels: dict[int, Connection] = {}
        self._places: list[_Place] = []
        self._chunk = lru_cache(_CHUNKS_IN_MEMORY)(self._read_chunk)
        self._size = path.stat().st_size
        reached, reason = self._scan()
        if not self._places:
            self._file.close()
            raise ValueError(f"{path} holds no readable message: {reason} at byte {reached} of {self._size}")
        self._places.sort()
        seconds = (self.end_time - 1 - self.start_time) / 1e9
        self.damage = (
            f"{path} is damaged or unfinished ({reason} at byte {reached} of {self._size}): read up to there, "
            f"{self.message_count} messages in {seconds:.1f} s"
        )

    @property
    def connections(self) -> list[Connection]:
        counts = Counter(place.channel for place in self._places)
        return [entry._replace(msgcount=counts[number]) for number, entry in self._channels.items()]

    @property
    def message_count(self) -> int:
        return len(self._places)

    @property
    def start_time(self) -> int:
        return self._places[0].stamp_ns

    @property
    def end_time(self) -> int:
        """One nanosecond after the last message, as rosbags has it."""
        return self._places[-1].stamp_ns + 1

    def close(self) -> None:
        self._file.close()

    def messages(
        self, connections: Collection[Connection], start: int | None = None, stop: int | None = None
    ) -> Iterator[tuple[Connection, int, bytes]]:
        """In the order of their stamps."""
        wanted = {entry.id: entry for entry in connections}
        for place in self._places:
            late_enough = start is None or place.stamp_ns >= start
            if place.channel in wanted and late_enough and (stop is None or place.stamp_ns < stop):
                yield wanted[place.channel], place.stamp_ns, self._data(place)

    def _data(self, place: _Place) -> bytes:
        if place.chunk < 0:
            self._file.seek(place.begin)
            return self._file.read(place.size)
        return self._chunk(place.chunk)[place.begin : place.begin + place.size]

    def _scan(self) -> tuple[int, str]:
        """Note every message before the damage; where that is, and what it is."""
        if self._file.read(len(_MAGIC)) != _MAGIC:
            return 0, "it is no mcap file"
        while True:
            reached = self._file.tell()
            try:
                record = self._next_record()
                if record is None:
                    return reached, "the file ends"
                if record.opcode == _DATA_END:
                    return reached, "its index cannot be read"
                if record.opcode == _CHUNK:
                    for inner in _records(_content_of_chunk(record.content)):
                        self._note(inner, record.begin)
                elif not record.cut:
                    self._note(record, -1)
                if record.cut:
                    return reached, "a record is cut off"
            except Exception as error:  # whatever a reader of damaged bytes comes upon
                return reached, f"{error}".strip() or type(error).__name__

    def _next_record(self) -> _Record | None:
        head = self._file.read(_HEAD.size)
        if not head:
            return None
        if len(head) < _HEAD.size:
            raise ValueError("a record is cut off")
        opcode, size = _HEAD.unpack(head)
        begin = self._file.tell()
        if opcode not in _KNOWN:
            raise ValueError("what follows is no record")
        content = self._file.read(min(size, self._size - begin))
        return _Record(opcode, begin, content, cut=len(content) < size)

    def _note(self, record: _Record, chunk: int) -> None:
        content = record.content
        if record.opcode == _SCHEMA:
            (number,) = struct.unpack_from("<H", content)
            name, encoding, text = _strings(content[2:], 3)
            self._schemas[number] = Schema(number, name, encoding, text)
        elif record.opcode == _CHANNEL:
            number, schema_number = struct.unpack_from("<HH", content)
            topic, encoding = _strings(content[4:], 2)
            metadata = content[4 + 8 + len(topic.encode()) + len(encoding.encode()) + 4 :]
            schema = self._schemas[schema_number]
            qos = ConnectionExtRosbag2(encoding, get_qos(metadata))
            self._channels[number] = Connection(number, topic, schema.name, get_msgdef(schema), "", 0, qos, self)
        elif record.opcode == _MESSAGE:
            channel, _, stamp_ns, _ = _MESSAGE_HEAD.unpack_from(content)
            begin, size = record.begin + _MESSAGE_HEAD.size, len(content) - _MESSAGE_HEAD.size
            self._places.append(_Place(stamp_ns, channel, chunk, begin, size))

    def _read_chunk(self, begin: int) -> bytes:
        self._file.seek(begin - _HEAD.size)
        record = self._next_record()
        assert record is not None
        return _content_of_chunk(record.content)


def _content_of_chunk(chunk: bytes) -> bytes:
    """What there is of it, where the file ends within one that is not compressed."""
    _, _, size, checksum = _CHUNK_HEAD.unpack_from(chunk)
    (compression,) = _strings(chunk[_CHUNK_HEAD.size :], 1)
    content = chunk[_CHUNK_HEAD.size + 4 + len(compression) + 8 :]
    is_cut = not compression and len(content) < size
    return content if is_cut else decompress(content, compression, size, checksum)


def _records(content: bytes) -> Iterator[_Record]:
    """Those that are whole."""
    begin = _HEAD.size
    while begin <= len(content):
        opcode, size = _HEAD.unpack_from(content, begin - _HEAD.size)
        if begin + size > len(content):
            return
        yield _Record(opcode, begin, content[begin : begin + size])
        begin += size + _HEAD.size


def _strings(content: bytes, count: int) -> list[str]:
    """Strings with their lengths before them."""
    found, begin = [], 0
    for _ in range(count):
        (size,) = struct.unpack_from("<I", content, begin)
        found.append(content[begin + 4 : begin + 4 + size].decode())
        begin += 4 + size
    return found
