"""A bag of encoded video becomes one of JPEGs, at the stamps of its packets."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import pytest

av = pytest.importorskip("av", reason="needs PyAV: pip install av")
pytest.importorskip("rosbags", reason="reads a bag")

from rosbags.rosbag2 import StoragePlugin, Writer

from bevformer_ros.commands.cli import main
from bevformer_ros.ros.bag.files import BagReader, deserialize
from bevformer_ros.ros.bag.video import DEFINITIONS, decode_video, video_typestore
from bevformer_ros.ros.conversions import stamp_to_ns
from bevformer_ros.types import SECOND_NS

FOXGLOVE, FFMPEG = DEFINITIONS
START, PERIOD, COUNT = 100 * SECOND_NS, SECOND_NS // 10, 8


def picture(index):
    """A bright square that moves to the right on a grey ramp."""
    image = np.repeat(np.linspace(40, 120, 160, dtype=np.uint8)[None, :, None], 96, axis=0).repeat(3, axis=2)
    image[30:60, 10 + 12 * index : 40 + 12 * index] = (30, 200, 240)
    return np.ascontiguousarray(image)


def packets():
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 160, 96, "yuv420p"
    encoder.time_base = Fraction(1, 10)
    encoder.options = {"tune": "zerolatency", "crf": "18"}
    found = []
    for index in range(COUNT):
        frame = av.VideoFrame.from_ndarray(picture(index), format="bgr24")
        frame.pts = index
        found += [bytes(packet) for packet in encoder.encode(frame)]
    assert len(found) == COUNT
    return found


def write_bag(path, kind, data, codec="h264"):
    typestore = video_typestore()
    time, header = typestore.types["builtin_interfaces/msg/Time"], typestore.types["std_msgs/msg/Header"]
    string = typestore.types["std_msgs/msg/String"]
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        video = bag.add_connection("/front", kind, typestore=typestore)
        other = bag.add_connection("/note", string.__msgtype__, typestore=typestore)
        bag.write(other, START, typestore.serialize_cdr(string("hello"), string.__msgtype__))
        for index, content in enumerate(data):
            stamp_ns = START + index * PERIOD
            stamp, bytes_ = time(stamp_ns // SECOND_NS, stamp_ns % SECOND_NS), np.frombuffer(content, np.uint8)
            if kind == FOXGLOVE:
                message = typestore.types[kind](stamp, "front", bytes_, codec)
            else:
                encoding = f"{codec};yuv420p;bgr8;bgr8"
                message = typestore.types[kind](header(stamp, "front"), 160, 96, encoding, index, 0, False, bytes_)
            bag.write(video, stamp_ns + 5, typestore.serialize_cdr(message, kind))


@pytest.mark.parametrize(("kind", "codec"), [(FOXGLOVE, "h264"), (FFMPEG, "libx264"), (FFMPEG, "h264")])
def test_pictures_come_out_at_their_stamps(tmp_path, capsys, kind, codec):
    write_bag(tmp_path / "video", kind, packets(), codec)
    assert main(["decode-video", str(tmp_path / "video"), "-o", str(tmp_path / "images")]) == 0
    assert f"/front: {COUNT} images of {COUNT} packets" in capsys.readouterr().out
    with BagReader(tmp_path / "images") as bag:
        assert set(bag.topics) == {"/front/compressed", "/note"}
        entries = list(bag.messages(["/front/compressed"]))
    assert [entry.stamp_ns for entry in entries] == [START + index * PERIOD + 5 for index in range(COUNT)]
    for index, message in enumerate(map(deserialize, entries)):
        assert (message.header.frame_id, stamp_to_ns(message.header.stamp)) == ("front", START + index * PERIOD)
        shown = cv2.imdecode(np.frombuffer(bytes(message.data), np.uint8), cv2.IMREAD_COLOR)
        assert np.abs(shown.astype(int) - picture(index)).mean() < 4.0


def test_what_comes_before_the_first_key_frame_shows_nothing(tmp_path):
    whole = packets()
    write_bag(tmp_path / "video", FOXGLOVE, whole[1:4] + whole)
    stream = decode_video(tmp_path / "video", tmp_path / "images")["/front"]
    assert (stream.packets, stream.images) == (COUNT + 3, COUNT)
    with BagReader(tmp_path / "images") as bag:
        first = deserialize(next(bag.messages(["/front/compressed"])))
    assert stamp_to_ns(first.header.stamp) == START + 3 * PERIOD


def test_what_is_refused(tmp_path):
    write_bag(tmp_path / "other", FOXGLOVE, packets()[:1], "av1")
    with pytest.raises(ValueError, match="video of the codec 'av1', expected one of h264"):
        decode_video(tmp_path / "other", tmp_path / "out")
    with Writer(tmp_path / "empty", version=9, storage_plugin=StoragePlugin.MCAP):
        pass
    with pytest.raises(ValueError, match="has no topic of foxglove_msgs/msg/CompressedVideo or ffmpeg"):
        decode_video(tmp_path / "empty", tmp_path / "none")
