"""Where the package's files that are not Python lie: config/ and weights/, and for ROS launch/ and rviz/."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

DEFAULT_RIG = "nuscenes_compressed"


def dds_profile_variable(prefixes: Iterable[str | Path]) -> str:
    """What names the profile, in a ROS 2 at these prefixes. Jazzy's Fast DDS 2 knows only the old name, of which later
    ones warn; their package has another name."""
    is_old = any((Path(prefix) / "share" / "fastrtps").is_dir() for prefix in prefixes)
    return f"{'FASTRTPS' if is_old else 'FASTDDS'}_DEFAULT_PROFILES_FILE"


DDS_PROFILE_VARIABLE = dds_profile_variable(filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(":")))


def share_directory() -> Path:
    """The directory that holds config/: the checkout, or share/bevformer_ros of the prefix (colcon or pip) that this
    module is installed in. Raises FileNotFoundError where neither exists."""
    module = Path(__file__).resolve()
    checkout = module.parent.parent
    installed = [folder / "share" / "bevformer_ros" for folder in module.parents]
    for candidate in (checkout, *installed):
        if (candidate / "config" / "rigs").is_dir():
            return candidate
    raise FileNotFoundError(
        f"bevformer_ros finds no config/ beside {checkout} and no share/bevformer_ros above it; "
        "run it from a checkout, or install it with pip or colcon"
    )


def package_version() -> str:
    """As package.xml has it, which is installed beside config/."""
    return ElementTree.parse(share_directory() / "package.xml").getroot().findtext("version", "")


def dds_profile() -> Path:
    """The Fast DDS profile with room for large images, for the variable DDS_PROFILE_VARIABLE."""
    return share_directory() / "config" / "dds" / "fastdds_large_images.xml"


def middleware_settings() -> dict[str, str]:
    """Environment variables with which Cyclone DDS or zenoh, if one of them is chosen, carries large images; what the
    environment says already is left out. Fast DDS has its profile."""
    chosen = os.environ.get("RMW_IMPLEMENTATION", "")
    folder = share_directory() / "config" / "dds"
    settings = {}
    if "cyclonedds" in chosen:
        settings = {"CYCLONEDDS_URI": (folder / "cyclonedds_large_images.xml").as_uri()}
    elif "zenoh" in chosen:
        settings = _variables(folder / "zenoh_large_images.env")
    return {name: value for name, value in settings.items() if name not in os.environ}


def process_settings() -> dict[str, str]:
    """Environment variables for the node and whatever else handles large images (config/process.env)."""
    return _variables(share_directory() / "config" / "process.env")


def _variables(file: Path) -> dict[str, str]:
    lines = (line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def config_file(kind: Literal["models", "rigs", "training"], name: str) -> Path:
    """The file that a user means: a path, or the bare name of a YAML in config/<kind>.

    Raises ValueError that lists the names there are.
    """
    if Path(name).suffix:
        return Path(name)
    directory = share_directory() / "config" / kind
    names = sorted(path.stem for path in directory.glob("*.yaml"))
    if name not in names:
        raise ValueError(f"{name!r} is neither a path with a suffix nor one of {', '.join(names)} in {directory}")
    return directory / f"{name}.yaml"


def model_file(name: str) -> Path:
    """The network that a user means: a path, the bare name of trained weights, which hold their configuration, or else
    of a configuration. Raises ValueError as config_file does."""
    weights = share_directory() / "weights" / f"{name}.safetensors"
    return weights if weights.is_file() else config_file("models", name)
