"""Camera topics of encoded video as topics of JPEGs, which everything else reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from bevformer_ros.ros.bag.files import BagMessage, BagReader, BagWriter, Storage
from bevformer_ros.ros.conversions import header_of, jpeg_to_message
from bevformer_ros.types import SECOND_NS

# Fields of foxglove_msgs and ffmpeg_image_transport_msgs, which need not be installed.
DEFINITIONS = {
    "foxglove_msgs/msg/CompressedVideo": (
        "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n"
    ),
    "ffmpeg_image_transport_msgs/msg/FFMPEGPacket": (
        "std_msgs/Header header\nint32 width\nint32 height\nstring encoding\nuint64 pts\nuint8 flags\n"
        "bool is_bigendian\nuint8[] data\n"
    ),
}
_CODECS = {
    "h264": "h264",
    "libx264": "h264",
    "h264_nvenc": "h264",
    "h265": "hevc",
    "hevc": "hevc",
    "hevc_nvenc": "hevc",
}
_JPEG_QUALITY = 95


def video_typestore() -> Any:
    """rosbags' newest types with those of DEFINITIONS."""
    typestore = get_typestore(Stores.LATEST)
    for name, text in DEFINITIONS.items():
        typestore.register(get_types_from_msg(text, name))
    return typestore


@dataclass(frozen=True)
class Packet:
    """One message of a video topic. recorded_ns: when the bag received it."""

    recorded_ns: int
    stamp_ns: int
    frame_id: str
    codec: str
    data: bytes


@dataclass
class Stream:
    """The pictures of one topic, whose packets must come in their order.

    packets, images: how many were given, and came out. Those before the first key frame show nothing.
    """

    packets: int = 0
    images: int = 0
    _decoder: Any = None
    _waiting: dict[int, Packet] = field(default_factory=dict)

    def decode(self, packet: Packet) -> Iterator[tuple[Packet, NDArray[np.uint8]]]:
        """Pictures (H, W, 3), BGR, that are complete now, each with its packet. Raises ValueError for other codecs."""
        if self._decoder is None:
            if packet.codec not in _CODECS:
                raise ValueError(f"video of the codec {packet.codec!r}, expected one of {', '.join(_CODECS)}")
            self._decoder = av.CodecContext.create(_CODECS[packet.codec], "r")
            self._decoder.thread_count = 1  # several hold pictures back
        encoded = av.Packet(packet.data)
        encoded.pts = self.packets
        self._waiting[self.packets] = replace(packet, data=b"")
        self.packets += 1
        yield from self._pictures(encoded)

    def flush(self) -> Iterator[tuple[Packet, NDArray[np.uint8]]]:
        """What the decoder still holds at the end."""
        if self._decoder is not None:
            yield from self._pictures(None)

    def _pictures(self, encoded: Any) -> Iterator[tuple[Packet, NDArray[np.uint8]]]:
        try:
            frames = self._decoder.decode(encoded)
        except av.error.FFmpegError:  # such as a packet whose key frame was not recorded
            return
        for frame in frames:
            self.images += 1
            yield self._waiting.pop(frame.pts), frame.to_ndarray(format="bgr24")


def decode_video(source: Path, target: Path, storage: Storage = "mcap") -> dict[str, Stream]:
    """Copy a bag; a video topic NAME becomes NAME/compressed, JPEGs with the stamps of its packets. By video topic what
    came of it.

    Raises ValueError for a bag without any, and for a codec that is not known.
    """
    streams: dict[str, Stream] = {}
    with BagReader(source) as bag, BagWriter(target, storage, replace_unfinished=True) as copy:
        streams = {name: Stream() for name, topic in bag.topics.items() if topic.type_name in DEFINITIONS}
        if not streams:
            raise ValueError(f"{source} has no topic of {' or '.join(DEFINITIONS)}; it has {', '.join(bag.topics)}")
        for name, topic in bag.topics.items():
            if name not in streams:
                copy.add_topic(name, topic.type_name, latched=topic.latched, best_effort=topic.best_effort)
        typestore = video_typestore()
        for message in bag.messages():
            stream = streams.get(message.topic)
            if stream is None:
                copy.write_raw(message.topic, message.type_name, message.data, message.stamp_ns)
                continue
            for shown, image in stream.decode(_packet(message, typestore)):
                _write(copy, message.topic, shown, image)
        for name, stream in streams.items():
            for shown, image in stream.flush():
                _write(copy, name, shown, image)
    return streams


def _packet(message: BagMessage, typestore: Any) -> Packet:
    found = typestore.deserialize_cdr(message.data, message.type_name)
    header = getattr(found, "header", None)
    if header is None:
        return Packet(message.stamp_ns, _nanoseconds(found.timestamp), found.frame_id, found.format, bytes(found.data))
    codec = found.encoding.partition(";")[0]
    return Packet(message.stamp_ns, _nanoseconds(header.stamp), header.frame_id, codec, bytes(found.data))


def _nanoseconds(stamp: Any) -> int:
    return int(stamp.sec) * SECOND_NS + int(stamp.nanosec)


def _write(copy: BagWriter, topic: str, packet: Packet, image: NDArray[np.uint8]) -> None:
    ok, data = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY))
    assert ok
    message = jpeg_to_message(data.tobytes(), header_of(packet.stamp_ns, packet.frame_id))
    copy.write(f"{topic}/compressed", message, packet.recorded_ns)
