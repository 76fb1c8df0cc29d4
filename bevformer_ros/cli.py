"""The `bevformer-ros` command. Each subcommand lives in the module that does its work."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple


class Command(NamedTuple):
    """module offers add_arguments(parser) and run(arguments) -> exit status; it is imported only when asked for,
    so that a command that needs no ROS runs without one."""

    name: str
    module: str
    summary: str


COMMANDS: tuple[Command, ...] = (
    Command("ablate", "bevformer_ros.ablate", "Train and score with and without parts of the design, as a table."),
    Command("benchmark", "bevformer_ros.benchmark", "Time each stage of a model and measure its memory."),
    Command("benchmark-history", "bevformer_ros.benchmark_history", "Time and memory of history, by number of slots."),
    Command("benchmark-node", "bevformer_ros.ros.benchmark_node", "Run the whole node on six cameras and time it."),
    Command("benchmark-scaling", "bevformer_ros.benchmark_scaling", "Plot time against cameras, size and history."),
    Command("benchmark-sync", "bevformer_ros.ros.benchmark_sync", "Measure receiving and synchronising six cameras."),
    Command("benchmark-world", "bevformer_ros.simulation.benchmark", "Images a second from the simulated world."),
    Command("convert", "bevformer_ros.convert", "Turn an official checkpoint into a .safetensors file."),
    Command("demo", "bevformer_ros.ros.demo", "Simulate a drive, detect on it over DDS, show what came out."),
    Command("draw", "bevformer_ros.ros.draw", "Draw projected boxes over the images of a keyframe or bag."),
    Command("evaluate", "bevformer_ros.ros.evaluate", "Score results against the truth by the nuScenes protocol."),
    Command("keyframe-to-bag", "bevformer_ros.ros.keyframe_bag", "Turn a folder with a frame.json into a bag."),
    Command("nuscenes-to-bag", "bevformer_ros.ros.nuscenes_bag", "Turn scenes of a nuScenes data set into bags."),
    Command("play", "bevformer_ros.ros.bag_player", "Publish a bag over DDS, with /clock."),
    Command("record", "bevformer_ros.ros.bag_recorder", "Record topics into a bag until interrupted."),
    Command("replay", "bevformer_ros.ros.replay", "Detect in bags without a ROS graph, the results into bags."),
    Command("report", "bevformer_ros.ros.report", "Results against the truth as a folder of HTML and pictures."),
    Command("simulate", "bevformer_ros.ros.simulate", "Drive through the simulated world and write it as a bag."),
    Command("submission", "bevformer_ros.ros.submission", "Turn results into a submission to the nuScenes benchmark."),
    Command("train", "bevformer_ros.training.train", "Train a detector, in the simulated world or on a data set."),
)


def main(words: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if words is None else list(words)
    # Started by "&" in a script, a process ignores SIGINT, and so would all that it starts and wants to end by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = argparse.ArgumentParser(prog="bevformer-ros", description=__doc__)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        subparser = subparsers.add_parser(command.name, help=command.summary, description=command.summary)
        if command.name == next(iter(words), None):
            try:
                module = import_module(command.module)
            except ModuleNotFoundError as error:
                remedy = (
                    "enter an environment that has it: source ROS 2's setup.bash, or .venv/bin/ros-activate of make env"
                )
                print(f"bevformer-ros {command.name}: needs the Python module {error.name}; {remedy}", file=sys.stderr)
                return 1
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    arguments = parser.parse_args(words)
    try:
        return int(arguments.run(arguments))
    except (ValueError, OSError) as error:
        print(f"bevformer-ros {arguments.command}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
