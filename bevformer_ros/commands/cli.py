"""The `bevformer-ros` command line. Each command is the module of its name beside this one."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from multiprocessing import active_children
from types import FrameType
from typing import NamedTuple

from bevformer_ros.resources import package_version


class Command(NamedTuple):
    """Its module offers add_arguments(parser) and run(arguments) -> exit status; it is imported only when asked for,
    so that a command that needs no ROS runs without one."""

    name: str
    summary: str

    @property
    def module(self) -> str:
        return f"bevformer_ros.commands.{self.name.replace('-', '_')}"


COMMANDS: tuple[Command, ...] = (
    Command("ablate", "Train and score with and without parts of the design, as a table."),
    Command("benchmark", "Time each stage of a model and measure its memory."),
    Command("benchmark-history", "Time and memory of history, by number of slots."),
    Command("benchmark-node", "Run the whole node on six cameras and time it."),
    Command("benchmark-scaling", "Plot time against cameras, size and history."),
    Command("benchmark-sync", "Measure receiving and synchronising six cameras."),
    Command("benchmark-tracking", "Time what tracking costs for each set of boxes."),
    Command("benchmark-world", "Images a second from the simulated world."),
    Command("check-rig", "Draw what a rig says over a bag's images, and say what is implausible."),
    Command("convert", "Turn an official checkpoint into a .safetensors file."),
    Command("decode-video", "Turn a bag of H.264 or H.265 video into one of JPEGs."),
    Command("demo", "Simulate a drive, detect on it over DDS, show what came out."),
    Command("draw", "Draw projected boxes over the images of a keyframe or bag."),
    Command("evaluate", "Score results against the truth by the nuScenes protocol."),
    Command("export", "Write the network for ONNX Runtime, torch.export or AOTInductor."),
    Command("keyframe-to-bag", "Turn a folder with a frame.json into a bag."),
    Command("make-rig", "Propose a rig YAML for the cameras of a bag or a running graph."),
    Command("nuscenes-to-bag", "Turn scenes of a nuScenes data set into bags."),
    Command("play", "Publish a bag over DDS, with /clock."),
    Command("record", "Record topics into a bag until interrupted."),
    Command("replay", "Detect in bags without a ROS graph, the results into bags."),
    Command("report", "Results against the truth as a folder of HTML and pictures."),
    Command("simulate", "Drive through the simulated world and write it as a bag."),
    Command("soak", "Run the whole node for long and judge its memory, threads and descriptors."),
    Command("submission", "Turn results into a submission to the nuScenes benchmark."),
    Command("train", "Train a detector, in the simulated world or on a data set."),
    Command("view", "A drive and its results in 3D, in the viewer of rerun."),
)


def main(words: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if words is None else list(words)
    # Started by "&" in a script, a process ignores SIGINT, and so would all that it starts and wants to end by it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        return _run(words)
    except KeyboardInterrupt as interrupt:
        number = next(iter(interrupt.args), signal.SIGINT)
    # Where the interrupt passed through code that was run from a string, `python -m` would end by SIGINT, whatever is
    # returned here; CPython forgets it when it runs other such code.
    exec("")
    # Outside of the handler, so that what broke off is gone, and its progress bar has ended its line.
    command = next(iter(words), "")
    print(f"bevformer-ros {command}: interrupted; give the same command again for what is left", file=sys.stderr)
    return 128 + number


def _interrupt(number: int, frame: FrameType | None) -> None:
    """End the processes of a pool at once, which would otherwise be waited for; a loader of torch ends its own."""
    for child in active_children():
        if not child.daemon:
            child.kill()
    raise KeyboardInterrupt(number)


def _run(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="bevformer-ros", description="BEVFormer v2 for ROS 2: detect, measure, train."
    )
    parser.add_argument("--version", action="version", version=f"bevformer-ros {package_version()}")
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
    except (ValueError, OSError, FloatingPointError) as error:
        reason = str(error)
    print(f"bevformer-ros {arguments.command}: {reason}", file=sys.stderr)  # outside for the reason above
    return 1
