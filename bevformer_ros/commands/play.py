"""`bevformer-ros play`: publishes a bag over DDS with /clock, for machines without `ros2 bag play`."""

from __future__ import annotations

import argparse
from pathlib import Path

from bevformer_ros.commands.field_options import add_field, help_text
from bevformer_ros.ros.live.player import PlayOptions, play


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bag", type=Path, metavar="BAG", help="bag directory, or a .mcap or .db3 file")
    add_field(parser, PlayOptions, "rate")
    add_field(parser, PlayOptions, "loop")
    add_field(parser, PlayOptions, "start_offset_s", "--start-offset")
    add_field(parser, PlayOptions, "lead_s", "--lead")
    add_field(parser, PlayOptions, "clock")
    parser.add_argument("--wait-for", nargs="*", metavar="TOPIC", help=help_text(PlayOptions, "wait_for"))
    add_field(parser, PlayOptions, "wait_timeout_s", "--wait-timeout")
    add_field(parser, PlayOptions, "best_effort_images")


def run(arguments: argparse.Namespace) -> int:
    options = PlayOptions(
        rate=arguments.rate,
        start_offset_s=arguments.start_offset_s,
        lead_s=arguments.lead_s,
        loop=arguments.loop,
        clock=arguments.clock,
        wait_for=None if arguments.wait_for is None else tuple(arguments.wait_for),
        wait_timeout_s=arguments.wait_timeout_s,
        best_effort_images=arguments.best_effort_images,
    )
    play(arguments.bag, options)
    return 0
