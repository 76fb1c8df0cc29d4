"""`bevformer-ros make-rig`: a rig YAML for the cameras of a bag, or of the graph that is running."""

from __future__ import annotations

import argparse
from pathlib import Path

from bevformer_ros.commands.detector_options import add_setting, config_of
from bevformer_ros.commands.options import add_output
from bevformer_ros.ros.bag.bag_survey import survey_of_bag
from bevformer_ros.ros.rig_proposal import propose, yaml_text
from bevformer_ros.ros.rig_survey import RigSurvey


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("bag", type=Path, nargs="?", metavar="BAG", help="bag with images, CameraInfo and tf")
    source.add_argument("--live", action="store_true", help="what is published now, in place of a bag")
    add_output(parser, "YAML", "the rig to write")
    add_setting(parser, "model")
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="how much of the bag, or how long to listen (default %(default)s)"
    )
    parser.add_argument(
        "--ground",
        type=float,
        metavar="Z",
        help="height of the road in the base frame, -0.33 where that is at the axle (default: of base_footprint, or 0)",
    )
    parser.add_argument("--base-frame", default="", help="tf frame of the car (default: found in tf)")
    parser.add_argument("--fixed-frame", default="", help="tf frame in which it moves (default: found in tf)")


def survey_of_running(seconds: float) -> RigSurvey:
    try:
        from bevformer_ros.ros.live.graph_survey import survey_of_graph
    except ModuleNotFoundError as error:
        raise ValueError(f"--live needs ROS: {error}; source its setup.bash, or name a bag") from error
    return survey_of_graph(seconds)


def run(arguments: argparse.Namespace) -> int:
    if arguments.output.exists():
        raise ValueError(f"{arguments.output} exists already; remove it or name another file")
    survey = survey_of_running(arguments.seconds) if arguments.live else survey_of_bag(arguments.bag, arguments.seconds)
    model = config_of(arguments.model)
    found = survey.survey(arguments.base_frame, arguments.fixed_frame)
    proposal = propose(found, model, arguments.ground)
    source = "the running graph" if arguments.live else str(arguments.bag)
    text = yaml_text(proposal, f"Proposed by `bevformer-ros make-rig` from {source} for the model {model.name}.")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(text, encoding="utf-8")
    print(f"{text}\n{len(proposal.rig.cameras)} cameras in {arguments.output}")
    return 0
