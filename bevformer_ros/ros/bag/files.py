"""Rosbag2 bags, read and written without a ROS graph: raw serialized messages, sqlite3 and mcap."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
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
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, ReaderError, StoragePlugin, Writer

from bevformer_ros.ros import message_bytes
from bevformer_ros.ros.message_definitions import typestore_with

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

    Raises ValueError where something lies at the path already: a bag is never overwritten or added to.
    """

    def __init__(self, path: str | Path, storage: Storage = "mcap", compressed: bool = False) -> None:
        """compressed: mcap chunks by zstd; sqlite3 has no such thing. Of little use for JPEGs."""
        if storage not in _PLUGINS:
            raise ValueError(f"storage is {storage!r}, expected one of {', '.join(_PLUGINS)}")
        if Path(path).exists():
            raise ValueError(f"{path} exists already; remove it or name another bag")
        self._writer = Writer(path, version=_BAG_VERSION, storage_plugin=_PLUGINS[storage])
        if compressed and storage == "mcap":
            self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._connections: dict[str, Connection] = {}

    def __enter__(self) -> BagWriter:
        self._writer.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

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
        self._writer.write(self._connections[topic], stamp_ns, data)


class BagReader:
    """Reads a bag directory or a single .mcap or .db3 file: `with BagReader(path) as bag: ...`.

    Raises ValueError for what is no readable bag.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._reader = Reader(self.path)
        except (ReaderError, FileNotFoundError) as error:
            raise ValueError(f"{path} is no bag: {error}") from error

    def __enter__(self) -> BagReader:
        try:
            self._reader.open()
        except ReaderError as error:
            raise ValueError(f"{self.path} cannot be read: {error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.close()

    @property
    def topics(self) -> dict[str, BagTopic]:
        return {
            connection.topic: BagTopic(
                connection.msgtype,
                sum(other.msgcount for other in self._reader.connections if other.topic == connection.topic),
                latched=any(qos.durability == QosDurability.TRANSIENT_LOCAL for qos in _qos_of(connection)),
                best_effort=any(qos.reliability == QosReliability.BEST_EFFORT for qos in _qos_of(connection)),
            )
            for connection in self._reader.connections
        }

    @property
    def start_ns(self) -> int:
        """Stamp of the first message; 0 in an empty bag."""
        return self._reader.start_time if self._reader.message_count else 0

    @property
    def end_ns(self) -> int:
        """Stamp of the last message; 0 in an empty bag."""
        return self._reader.end_time - 1 if self._reader.message_count else 0

    @property
    def message_count(self) -> int:
        return self._reader.message_count

    def messages(
        self, topics: Collection[str] | None = None, start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[BagMessage]:
        """Messages in the order of their stamps, from start_ns on and before stop_ns; of all topics where None is
        named. Raises ValueError for a topic that the bag lacks."""
        missing = sorted(set(topics or ()) - set(self.topics))
        if missing:
            raise ValueError(f"{self.path} has no topic {', '.join(missing)}; it has {', '.join(sorted(self.topics))}")
        wanted = [entry for entry in self._reader.connections if topics is None or entry.topic in topics]
        if not wanted:
            return
        for connection, stamp_ns, data in self._reader.messages(wanted, start_ns, stop_ns):
            yield BagMessage(connection.topic, connection.msgtype, stamp_ns, bytes(data))


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
