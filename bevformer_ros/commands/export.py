"""`bevformer-ros export`: the forward pass as files for other runtimes."""

from __future__ import annotations

import argparse
from typing import get_args

from bevformer_ros.commands.detector_options import add_model_with_weights
from bevformer_ros.commands.options import add_output, rig_of
from bevformer_ros.inference.export import Attention, Format, export
from bevformer_ros.inference.pipeline import load_detector


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_with_weights(parser)
    parser.add_argument(
        "--format",
        choices=get_args(Format),
        default="onnx",
        help="onnx; torch-export, a program for torch.export.load; or aoti, for this CPU (default %(default)s)",
    )
    parser.add_argument(
        "--attention",
        choices=get_args(Attention),
        default="gridsample",
        help="deformable attention of onnx: of operators that every runtime has, or TensorRT's (default %(default)s)",
    )
    parser.add_argument("--rig", help="the car's cameras: a name in config/rigs or a YAML file (default: the model's)")
    add_output(parser, "FOLDER", "the folder for the files")


def run(arguments: argparse.Namespace) -> int:
    model_cameras = rig_of(arguments).model_cameras if arguments.rig else None
    detector = load_detector(arguments.model, arguments.weights or None, model_cameras=model_cameras)
    for file in export(detector, arguments.format, arguments.output, arguments.attention):
        print(f"{file}  {file.stat().st_size / 1e6:.1f} MB")
    return 0
