"""`bevformer-ros draw`: projected boxes over the camera images, to see the geometry before trusting a number."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.datasets.keyframe import keyframe_surround_frame, keyframe_truth, load_keyframe
from bevformer_ros.drawing import draw_surround
from bevformer_ros.resources import config_file
from bevformer_ros.ros.bag.files import BagReader
from bevformer_ros.ros.bag.scene import BagScene, BoxTopics
from bevformer_ros.ros.bag.simulated_drive import DEFAULT_RIG, TRUTH_BOXES, TRUTH_KINEMATICS
from bevformer_ros.types import SECOND_NS, Detections3D, SurroundFrame


def keyframe_scene(folder: Path) -> tuple[SurroundFrame, Detections3D]:
    """A recorded keyframe and its annotations."""
    return keyframe_surround_frame(folder), keyframe_truth(load_keyframe(folder))


def bag_scene(
    path: Path, rig: RigConfig, topics: BoxTopics, seconds: float | None
) -> tuple[SurroundFrame, Detections3D]:
    """The frame and the boxes of a topic nearest to `seconds` after the bag's start; its middle where None."""
    with BagReader(path) as bag:
        scene = BagScene(bag, rig)
        stamps = scene.box_stamps(topics.boxes)
        if not stamps:
            raise ValueError(f"{path} has no message on {topics.boxes}")
        wanted = (bag.start_ns + bag.end_ns) / 2 if seconds is None else bag.start_ns + seconds * SECOND_NS
        stamp_ns = min(stamps, key=lambda stamp: abs(stamp - wanted))
        return scene.frame(stamp_ns), scene.boxes(topics, stamp_ns)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="FOLDER|BAG", help="a folder with a frame.json, or a bag")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="PNG", help="picture to write")
    parser.add_argument("--width", type=int, default=800, help="of one view in pixels (default %(default)s)")
    parser.add_argument("--at", type=float, metavar="S", help="bag: seconds after its start (default: the middle)")
    parser.add_argument("--rig", default=DEFAULT_RIG, help="bag: name in config/rigs or a YAML (default %(default)s)")
    parser.add_argument("--boxes", default=TRUTH_BOXES, metavar="TOPIC", help="bag: (default %(default)s)")
    parser.add_argument("--kinematics", default=TRUTH_KINEMATICS, metavar="TOPIC", help="bag: (default %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    if (arguments.source / "frame.json").is_file():
        frame, boxes = keyframe_scene(arguments.source)
    else:
        rig = load_yaml(RigConfig, config_file("rigs", arguments.rig))
        topics = BoxTopics(arguments.boxes, arguments.kinematics)
        frame, boxes = bag_scene(arguments.source, rig, topics, arguments.at)
    title = f"{arguments.source.name}   {len(boxes)} boxes   {frame.stamp_ns / SECOND_NS:.3f} s"
    write_picture(arguments.output, draw_surround(frame, boxes, title, view_width=arguments.width))
    print(f"{len(boxes)} boxes in {arguments.output}")
    return 0


def write_picture(path: Path, image: np.ndarray) -> None:
    """Raises OSError where the picture cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), image):
        raise OSError(f"{path} cannot be written as a picture; does its name end in .png or .jpg?")
