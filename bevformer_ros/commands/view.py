"""`bevformer-ros view`: a drive and its results in rerun's viewer, or into a file for it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from numpy.typing import NDArray

from bevformer_ros.commands.options import add_rig, rig_of
from bevformer_ros.config import RigConfig
from bevformer_ros.ros.bag.replay_record import RECORD_FILE, drive_of
from bevformer_ros.types import SurroundFrame


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bag", type=Path, metavar="BAG|OUT", help="a drive, or a bag with results")
    parser.add_argument("--drive", type=Path, metavar="BAG", help="of results that do not say what was replayed")
    parser.add_argument("--save", type=Path, metavar="RRD", help="write this file in place of opening the viewer")
    parser.add_argument("--features", metavar="MODEL", help="run it too, and show how strong its BEV features are")
    add_rig(parser)


def run(arguments: argparse.Namespace) -> int:
    try:
        from bevformer_ros.ros.bag.viewer import view
    except ModuleNotFoundError as error:
        if error.name != "rerun":
            raise
        raise ValueError("the viewer is rerun's, which is not installed: pip install rerun-sdk") from error
    is_result = arguments.drive is not None or (arguments.bag / RECORD_FILE).is_file()
    drive = (arguments.drive or drive_of(arguments.bag)) if is_result else arguments.bag
    result, rig = (arguments.bag if is_result else None), rig_of(arguments)
    count = view(drive, result, rig, arguments.save, bev_norms_of(arguments.features, rig))
    print(f"{count} sets" + (f" in {arguments.save}; open it with: rerun {arguments.save}" if arguments.save else ""))
    return 0


def bev_norms_of(model: str | None, rig: RigConfig) -> Callable[[SurroundFrame], NDArray] | None:
    """Of a frame, by the network of a model; None without one."""
    if model is None:
        return None
    from bevformer_ros.inference.pipeline import load_detector

    return load_detector(model, device="auto", precision="auto", model_cameras=rig.model_cameras).bev_norms
