"""`bevformer-ros convert`: an official checkpoint becomes one file of ours that holds the model's configuration too.

One of ours may be given as well, to halve its size.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bevformer_ros.commands.detector_options import model_of, one_number_or_more
from bevformer_ros.commands.options import add_output
from bevformer_ros.config import load_yaml
from bevformer_ros.error_model import ErrorModel
from bevformer_ros.model.conversion import convert
from bevformer_ros.taxonomy import CLASS_NAMES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, help="official .pth as mmcv saved it, or .safetensors of ours")
    add_output(parser, "FILE", "the .safetensors file to write")
    parser.add_argument("--model", required=True, help="a name in config/models, or a YAML of your own")
    parser.add_argument(
        "--partial", action="store_true", help="take what fits, leave the rest random; names what did not fit"
    )
    parser.add_argument("--half", action="store_true", help="store float16: half the size, off by 0.05 %% at most")
    parser.add_argument(
        "--score-threshold",
        type=one_number_or_more,
        metavar="NUMBER[,NUMBER...]",
        help="that the weights recommend for showing boxes, one for all classes or one for each: "
        f"{', '.join(CLASS_NAMES)} (default: as they did)",
    )
    parser.add_argument(
        "--error-model",
        type=Path,
        metavar="YAML",
        help="how far boxes may be off, as evaluate --error-model writes it (default: as the weights say)",
    )


def run(arguments: argparse.Namespace) -> int:
    config = model_of(arguments)
    converted = convert(
        arguments.checkpoint,
        arguments.output,
        config,
        arguments.partial,
        arguments.half,
        arguments.score_threshold,
        None if arguments.error_model is None else load_yaml(ErrorModel, arguments.error_model),
    )
    print(converted.table())
    return 0
