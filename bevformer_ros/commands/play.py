"""`bevformer-ros play`: publishes a bag over DDS with /clock, for machines without `ros2 bag play`."""

from __future__ import annotations

import argparse
from pathlib import Path

from bevformer_ros.ros.live.player import PlayOptions, play


def add_arguments(parser: argparse.ArgumentParser) -> None:
    default = PlayOptions()
    parser.add_argument("bag", type=Path, metavar="BAG", help="bag directory, or a .mcap or .db3 file")
    parser.add_argument("--rate", type=float, default=default.rate, help="speed factor (default %(default)s)")
    parser.add_argument("--loop", action="store_true", help="start again at the end; the clock then steps back")
    parser.add_argument(
        "--start-offset", type=float, default=default.start_offset_s, metavar="S", help="seconds to leave out at first"
    )
    parser.add_argument(
        "--lead",
        type=float,
        default=default.lead_s,
        metavar="S",
        help="seconds of /clock before the first message, for subscribers to connect (default %(default)s)",
    )
    parser.add_argument("--no-clock", action="store_true", help="do not publish /clock")
    parser.add_argument(
        "--wait-for", nargs="*", metavar="TOPIC", help="wait for subscribers of these (default: of every image topic)"
    )
    parser.add_argument(
        "--wait-timeout",
        type=float,
        default=default.wait_timeout_s,
        metavar="S",
        help="give up after this long (default %(default)s; 0: do not wait)",
    )
    parser.add_argument("--best-effort-images", action="store_true", help="offer images best effort, as drivers do")


def run(arguments: argparse.Namespace) -> int:
    options = PlayOptions(
        rate=arguments.rate,
        start_offset_s=arguments.start_offset,
        lead_s=arguments.lead,
        loop=arguments.loop,
        clock=not arguments.no_clock,
        wait_for=None if arguments.wait_for is None else tuple(arguments.wait_for),
        wait_timeout_s=arguments.wait_timeout,
        best_effort_images=arguments.best_effort_images,
    )
    try:
        play(arguments.bag, options)
    except KeyboardInterrupt:
        return 130
    return 0
