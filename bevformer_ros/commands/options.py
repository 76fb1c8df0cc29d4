"""Options that several commands share: one word, one meaning and one help text each."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal, get_args

from bevformer_ros.class_map import ClassMap
from bevformer_ros.config import RigConfig, load_yaml
from bevformer_ros.resources import DEFAULT_RIG, config_file
from bevformer_ros.ros.topics import OUTPUT, OUTPUT_TRACKS, TRUTH, BoxTopics

Storage = Literal["mcap", "sqlite3"]
Options = argparse._ActionsContainer  # a parser, or a group of its options


def add_output(parser: Options, metavar: str, what: str, default: str | None = None) -> None:
    """Required where there is no default."""
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=default is None,
        default=None if default is None else Path(default),
        metavar=metavar,
        help=what if default is None else f"{what} (default %(default)s)",
    )


def add_rig(parser: Options, what: str = "topics and frames") -> None:
    parser.add_argument(
        "--rig", default=DEFAULT_RIG, help=f"{what}: a name in config/rigs or a YAML file (default %(default)s)"
    )


def rig_of(arguments: argparse.Namespace) -> RigConfig:
    return load_yaml(RigConfig, config_file("rigs", arguments.rig))


def add_storage(parser: Options) -> None:
    parser.add_argument("--storage", choices=get_args(Storage), default="mcap", help="of bags (default %(default)s)")


def add_size(parser: Options, default: tuple[int, int]) -> None:
    text = "{}x{}".format(*default)
    parser.add_argument("--size", type=image_size, default=default, metavar="WxH", help=f"of images (default {text})")


def image_size(text: str) -> tuple[int, int]:
    """800x450 as (800, 450)."""
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is no image size, expected WIDTHxHEIGHT such as 800x450")
    return int(width), int(height)


def add_workers(parser: Options, default: int, what: str) -> None:
    parser.add_argument("--workers", type=int, default=default, help=f"processes that {what} (default %(default)s)")


def add_cache(parser: Options) -> None:
    parser.add_argument("--cache", type=Path, help="folder for rendered drives (default: drives in the output)")


def cache_of(arguments: argparse.Namespace) -> Path:
    cache: Path | None = arguments.cache
    return cache or arguments.output / "drives"


def add_json(parser: Options) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def add_dataset(parser: Options) -> None:
    """Of nuScenes, or in its format."""
    parser.add_argument("dataroot", type=Path, metavar="DATAROOT", help="folder with samples, sweeps and the tables")
    parser.add_argument("--version", default="v1.0-mini", help="folder of the tables (default %(default)s)")


def add_results(parser: Options, count: Literal["+", "*"]) -> None:
    """What is evaluated against what. count: how many results there must be."""
    parser.add_argument("results", type=Path, nargs=count, metavar="OUT", help="bags with the detector's results")
    parser.add_argument(
        "--ground-truth",
        type=Path,
        nargs="+",
        default=[],
        metavar="BAG",
        help="bags with truth and tf, one for each OUT; without it those that were replayed",
    )
    add_rig(parser, "frames")
    parser.add_argument("--truth", default=TRUTH.boxes, metavar="TOPIC", help="(default %(default)s)")
    parser.add_argument("--truth-kinematics", default=TRUTH.kinematics, metavar="TOPIC", help="(default %(default)s)")
    parser.add_argument(
        "--detections", metavar="TOPIC", help=f"in OUT (default {OUTPUT.boxes}; for tracks {OUTPUT_TRACKS.boxes})"
    )
    parser.add_argument(
        "--detection-kinematics",
        metavar="TOPIC",
        help=f"(default {OUTPUT.kinematics}; for tracks {OUTPUT_TRACKS.kinematics})",
    )
    parser.add_argument("--classes", type=Path, metavar="YAML", help="what the bags' classes are called here")
    parser.add_argument(
        "--compare",
        type=Path,
        nargs="+",
        default=[],
        metavar="OUT",
        help="another detector's results on the same bags, in the same order, to stand beside the first",
    )


def truth_of(arguments: argparse.Namespace) -> BoxTopics:
    return BoxTopics(arguments.truth, arguments.truth_kinematics)


def detections_of(arguments: argparse.Namespace, default: BoxTopics = OUTPUT) -> BoxTopics:
    return BoxTopics(
        arguments.detections or default.boxes,
        arguments.detection_kinematics or default.kinematics,
    )


def classes_of(arguments: argparse.Namespace) -> ClassMap | None:
    return None if arguments.classes is None else load_yaml(ClassMap, arguments.classes)
