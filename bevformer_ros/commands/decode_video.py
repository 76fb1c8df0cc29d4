"""`bevformer-ros decode-video`: a bag whose cameras are H.264 or H.265 video becomes one with JPEGs."""

from __future__ import annotations

import argparse
from pathlib import Path

from bevformer_ros.commands.options import add_output, add_storage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bag", type=Path, metavar="BAG", help="with foxglove's CompressedVideo or FFMPEGPacket topics")
    add_output(parser, "BAG", "bag to create; topic NAME becomes NAME/compressed, all others stay")
    add_storage(parser)


def run(arguments: argparse.Namespace) -> int:
    try:
        from bevformer_ros.ros.bag.video import decode_video
    except ModuleNotFoundError as error:
        if error.name != "av":
            raise
        raise ValueError("video is decoded by PyAV, which is not installed: pip install av") from error
    for topic, stream in decode_video(arguments.bag, arguments.output, arguments.storage).items():
        print(f"{topic}: {stream.images} images of {stream.packets} packets")
    return 0
