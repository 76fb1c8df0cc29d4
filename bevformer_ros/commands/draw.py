"""`bevformer-ros draw`: projected boxes over the camera images, to see the geometry before trusting a number."""

from __future__ import annotations

import argparse
from pathlib import Path

from bevformer_ros import geometry
from bevformer_ros.commands.options import add_output, add_rig, rig_of
from bevformer_ros.datasets.keyframe import keyframe_surround_frame, keyframe_truth, load_keyframe
from bevformer_ros.drawing import draw_surround, write_picture
from bevformer_ros.ros.bag.scene import scene_at
from bevformer_ros.ros.topics import OUTPUT, TRUTH, BoxTopics
from bevformer_ros.types import SECOND_NS, Detections3D


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="FOLDER|BAG", help="a folder with a frame.json, or a bag")
    add_output(parser, "PNG", "picture to write")
    parser.add_argument("--width", type=int, default=800, help="of one camera's view in pixels (default %(default)s)")
    parser.add_argument("--at", type=float, metavar="S", help="bag: seconds after its start (default: the middle)")
    parser.add_argument(
        "--ground", action="store_true", help="draw the horizon, a grid of 10 m and a car's outline, as without boxes"
    )
    add_rig(parser, "bag: topics and frames")
    parser.add_argument("--results", type=Path, metavar="OUT", help="bag: draw what was detected in it, from this bag")
    parser.add_argument("--boxes", metavar="TOPIC", help=f"bag: (default {TRUTH.boxes}, of results {OUTPUT.boxes})")
    parser.add_argument("--kinematics", metavar="TOPIC", help="bag: (default: those that belong to the boxes)")


def run(arguments: argparse.Namespace) -> int:
    source: Path = arguments.source
    if (source / "frame.json").is_file():
        keyframe = load_keyframe(source)
        frame = keyframe_surround_frame(source)
        found: Detections3D | None = keyframe_truth(keyframe)
        bev_from_base = geometry.invert(keyframe["lidar_to_ego"])
    else:
        usual = TRUTH if arguments.results is None else OUTPUT
        topics = BoxTopics(arguments.boxes or usual.boxes, arguments.kinematics or usual.kinematics)
        frame, found, bev_from_base = scene_at(source, rig_of(arguments), topics, arguments.at, arguments.results)
    boxes = Detections3D.empty(frame.stamp_ns) if found is None else found
    ground = bev_from_base if arguments.ground or found is None else None
    title = f"{source.name}   {len(boxes)} boxes   {frame.stamp_ns / SECOND_NS:.3f} s"
    picture = draw_surround(frame, boxes, title, bev_from_base=ground, view_width=arguments.width)
    write_picture(arguments.output, picture)
    print(f"{len(boxes)} boxes in {arguments.output}")
    return 0
