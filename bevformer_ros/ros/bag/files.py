"""Rosbag2 bags, read and written without a ROS graph: raw serialized messages, sqlite3 and mcap."""

from __future__ import annotations

import heapq
import logging
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple

from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.rosbag2.storage_mcap import McapWriter
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Writer

from bevformer_ros.ros import message_bytes
from bevformer_ros.ros.bag.storages import OpenStorage, open_storages, reason_of, require_bag
from bevformer_ros.ros.message_definitions import typestore_with
from bevformer_ros.types import SECOND_NS
from bevformer_ros.unfinished import partial_path, remove

LOGGER = logging.getLogger(__name__)

Storage = Literal["sqlite3", "mcap"]

_PLUGINS = {"sqlite3": StoragePlugin.SQLITE3, "mcap": StoragePlugin.MCAP}
_FOREVER = QosTime(9223372036, 854775807)  # what rosbag2 writes for an unlimited duration
_BAG_VERSION: Literal[9] = 9  # of Jazzy and later


class BagMessage(NamedTuple):
    """One serialized message. stamp_ns: when it was recorded; the message's own header may say otherwise."""

    topic: str
    type_name: str
    stamp_ns: int
    data: bytes


@dataclass(frozen=True)
class BagTopic:
    """type_name: as in sensor_msgs/msg/Image. latched, best_effort: as the publisher offered it."""

    type_name: str
    message_count: int
    latched: bool
    best_effort: bool


class BagWriter:
    """Writes a new bag: `with BagWriter(path, "mcap") as bag: bag.write("/topic", message, stamp_ns)`.

    Until it is complete it lies in a folder with .partial behind its name, where it stays if the block ends by an
    error; BagReader reads that too. Raises ValueError where something lies at the path already, or an unfinished bag
    that `replace_unfinished` does not give up: a bag is never overwritten or added to. Raises OSError that names the
    place where the disk takes no more.
    """

    def __init__(
        self, path: str | Path, storage: Storage = "mcap", compressed: bool = False, replace_unfinished: bool = False
    ) -> None:
        """compressed: mcap chunks by zstd; sqlite3 has no such thing. Of little use for JPEGs. replace_unfinished: for
        what can be made again, unlike a recording."""
        if storage not in _PLUGINS:
            raise ValueError(f"storage is {storage!r}, expected one of {', '.join(_PLUGINS)}")
        self._path = Path(path)
        self._partial = partial_path(self._path)
        if self._path.exists():
            raise ValueError(f"{path} exists already; remove it or name another bag")
        if replace_unfinished:
            remove(self._partial)
        if self._partial.exists():
            raise ValueError(
                f"{self._partial} holds what an earlier run wrote until it broke off, and can be read like any bag, by "
                f"other tools after `mcap recover`; move or remove it, or name another bag than {path}"
            )
        self._writer = Writer(self._partial / self._path.name, version=_BAG_VERSION, storage_plugin=_PLUGINS[storage])
        if compressed and storage == "mcap":
            self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._connections: dict[str, Connection] = {}

    def __enter__(self) -> BagWriter:
        self._writer.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                with self._naming_the_place():
                    self._writer.close()
                    self._writer.path.rename(self._path)
                    self._partial.rmdir()
            elif not isinstance(error, OSError):  # after which a chunk might be written twice
                self.flush()
        finally:
            with suppress(OSError, sqlite3.Error):
                self._writer.abort()

    @contextmanager
    def _naming_the_place(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise OSError(f"{self._partial} cannot be written: {reason}; what it holds so far can be read") from error

    def flush(self) -> None:
        """From now on what was written so far can be read, however this process ends."""
        storage = self._writer.storage
        with self._naming_the_place():
            if isinstance(storage, McapWriter):
                if storage.chunk.msgs:
                    storage.close_chunk()
                storage.bio.flush()
            elif isinstance(storage, Sqlite3Writer):
                storage.conn.commit()

    def add_file(self, name: str, text: str) -> None:
        """Beside the storage in the bag's folder; rosbag2 does not mind."""
        with self._naming_the_place():
            (self._writer.path / name).write_text(text, encoding="utf-8")

    @property
    def message_counts(self) -> dict[str, int]:
        return {topic: self._writer.counts[connection.id] for topic, connection in self._connections.items()}

    def add_topic(self, topic: str, type_name: str, *, latched: bool = False, best_effort: bool = False) -> None:
        """Announce a topic; needed only for latched and best-effort ones, write() announces any other itself.

        Raises ValueError for a topic announced with another type, and for a type without a definition.
        """
        known = self._connections.get(topic)
        if known is not None:
            if known.msgtype != type_name:
                raise ValueError(f"{topic} carries {known.msgtype}, it cannot carry {type_name} too")
            return
        self._connections[topic] = self._writer.add_connection(
            topic,
            type_name,
            typestore=typestore_with(type_name),
            offered_qos_profiles=[_offered(latched, best_effort)],
        )

    def write(self, topic: str, message: Any, stamp_ns: int) -> None:
        """Serialize a message and store it as received at a stamp; equal messages become equal bytes."""
        self.write_raw(topic, message_bytes.type_name_of(message), message_bytes.serialize(message), stamp_ns)

    def write_raw(self, topic: str, type_name: str, data: bytes, stamp_ns: int) -> None:
        """Store CDR bytes."""
        self.add_topic(topic, type_name)
        with self._naming_the_place():
            self._writer.write(self._connections[topic], stamp_ns, data)


class BagReader:
    """Reads a bag directory or a single .mcap or .db3 file: `with BagReader(path) as bag: ...`.

    A bag without metadata.yaml, or with a torn mcap file, is read as far as it goes. damage: empty, or what is wrong
    with it and how far that is; it is logged too.

    Raises ValueError for what is no readable bag.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.damage = ""
        self._left_out: set[tuple[str, int]] = set()
        self._storages: list[OpenStorage] = []
        self._damaged: list[OpenStorage] = []
        require_bag(self.path)

    def __enter__(self) -> BagReader:
        self._storages, damages = open_storages(self.path)
        for damage in damages:
            self._report(damage)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for storage in self._storages:
            storage.close()

    def _report(self, damage: str) -> None:
        _warn_once(damage)
        self.damage = f"{self.damage}; {damage}" if self.damage else damage

    @property
    def losses(self) -> list[str]:
        """What of the bag could not be read so far; empty where nothing is wrong."""
        unreadable = [
            f"{self.path}: {count} messages on {topic} could not be used" for topic, count in self.unreadable.items()
        ]
        return [*filter(None, [self.damage]), *unreadable]

    @property
    def _connections(self) -> list[Connection]:
        return [connection for storage in self._storages for connection in storage.connections]

    @property
    def topics(self) -> dict[str, BagTopic]:
        connections = self._connections
        return {
            connection.topic: BagTopic(
                connection.msgtype,
                sum(other.msgcount for other in connections if other.topic == connection.topic),
                latched=any(qos.durability == QosDurability.TRANSIENT_LOCAL for qos in _qos_of(connection)),
                best_effort=any(qos.reliability == QosReliability.BEST_EFFORT for qos in _qos_of(connection)),
            )
            for connection in connections
        }

    @property
    def start_ns(self) -> int:
        """Stamp of the first message; 0 in an empty bag."""
        return min((storage.start_time for storage in self._storages if storage.message_count), default=0)

    @property
    def end_ns(self) -> int:
        """Stamp of the last message; 0 in an empty bag."""
        return max((storage.end_time - 1 for storage in self._storages if storage.message_count), default=0)

    @property
    def message_count(self) -> int:
        return sum(storage.message_count for storage in self._storages)

    def messages(
        self, topics: Collection[str] | None = None, start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[BagMessage]:
        """Messages in the order of their stamps, from start_ns on and before stop_ns; of all topics where None is
        named. Raises ValueError for a topic that the bag lacks."""
        known = self.topics
        missing = sorted(set(topics or ()) - set(known))
        if missing:
            raise ValueError(f"{self.path} has no topic {', '.join(missing)}; it has {', '.join(sorted(known))}")
        streams = [self._messages_of(storage, topics, start_ns, stop_ns) for storage in self._storages]
        yield from heapq.merge(*streams, key=lambda message: message.stamp_ns)

    def _messages_of(
        self, storage: OpenStorage, topics: Collection[str] | None, start_ns: int | None, stop_ns: int | None
    ) -> Iterator[BagMessage]:
        """Up to the damage, where there is any."""
        wanted = [entry for entry in storage.connections if topics is None or entry.topic in topics]
        reached = self.start_ns
        try:
            for connection, reached, data in storage.messages(wanted, start_ns, stop_ns) if wanted else ():
                yield BagMessage(connection.topic, connection.msgtype, reached, bytes(data))
        except Exception as error:  # whatever a reader of damaged bytes comes upon
            if storage not in self._damaged:
                self._damaged.append(storage)
                seconds = (reached - self.start_ns) / SECOND_NS
                self._report(f"{self.path} is damaged after {seconds:.1f} s: {reason_of(error)}; read up to there")

    def objects(
        self, kinds: Mapping[str, Collection[type]], start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[tuple[BagMessage, Any]]:
        """messages() of some topics with what they say, each of one of its topic's kinds. Those that cannot be read, or
        are of another kind, are left out and counted; the first of each topic is logged."""
        names = {
            topic: {message_bytes.type_name_of_class(kind) for kind in allowed} for topic, allowed in kinds.items()
        }
        for message in self.messages(kinds, start_ns, stop_ns):
            if message.type_name not in names[message.topic]:
                expected = " or ".join(sorted(names[message.topic]))
                self.leave_out(message.topic, message.stamp_ns, f"it is {message.type_name}, expected {expected}")
                continue
            try:
                content = deserialize(message)
            except Exception as error:  # whatever a reader of damaged bytes comes upon
                self.leave_out(message.topic, message.stamp_ns, reason_of(error))
                continue
            yield message, content

    @property
    def unreadable(self) -> Counter[str]:
        """Messages that were left out, by topic."""
        return Counter(topic for topic, _ in self._left_out)

    def leave_out(self, topic: str, stamp_ns: int, reason: str) -> None:
        """Count a message that cannot be used."""
        if topic not in self.unreadable:
            seconds = (stamp_ns - self.start_ns) / SECOND_NS
            _warn_once(f"{self.path}: a message on {topic} at {seconds:.1f} s, and any like it, is left out: {reason}")
        self._left_out.add((topic, stamp_ns))


@cache
def _warn_once(text: str) -> None:
    """However often a bag is opened."""
    LOGGER.warning("%s", text)


def deserialize(message: BagMessage) -> Any:
    """The message as an object."""
    return message_bytes.deserialize(message.data, message.type_name)


def _qos_of(connection: Connection) -> list[Qos]:
    return getattr(connection.ext, "offered_qos_profiles", [])


def _offered(latched: bool, best_effort: bool) -> Qos:
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=10,
        reliability=QosReliability.BEST_EFFORT if best_effort else QosReliability.RELIABLE,
        durability=QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        deadline=_FOREVER,
        lifespan=_FOREVER,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=_FOREVER,
        avoid_ros_namespace_conventions=False,
    )
