"""Options about the network that several commands share.

What needs torch is imported where it is needed: some of these commands run with another backend, without torch.
"""

from __future__ import annotations

import argparse

from bevformer_ros.commands.options import Options
from bevformer_ros.config import load_yaml
from bevformer_ros.inference.choices import Precision
from bevformer_ros.model.config import ModelConfig
from bevformer_ros.resources import config_file, model_file
from bevformer_ros.ros.node.settings import SETTINGS, Settings, default_text

# What has a meaning without a ROS graph.
_LIVE = ("autostart", "image_reliability", "image_depth", "publish_rate_limit", "skip_if_unsubscribed")
_OFFLINE = tuple(name for name in SETTINGS if name not in ("rig", *_LIVE))


def one_number_or_more(text: str) -> float | tuple[float, ...]:
    """0.3 or 0.3,0.2,..."""
    numbers = tuple(map(float, text.split(",")))
    return numbers if len(numbers) > 1 else numbers[0]


def add_device(parser: Options) -> None:
    add_setting(parser, "device")


def device_of(arguments: argparse.Namespace) -> str:
    """Where `auto` is. Raises ValueError for a device that is not there."""
    from bevformer_ros.inference.precision import resolve_device

    return resolve_device(arguments.device)


def add_precision(parser: Options) -> None:
    add_setting(parser, "precision")


def precision_of(arguments: argparse.Namespace) -> Precision:
    from bevformer_ros.inference.precision import resolve_precision

    return resolve_precision(arguments.precision, device_of(arguments))


def add_model(parser: Options, default: str) -> None:
    """Of a model without weights."""
    parser.add_argument("--model", default=default, help="name in config/models, or a YAML file (default %(default)s)")


def model_of(arguments: argparse.Namespace) -> ModelConfig:
    return load_yaml(ModelConfig, config_file("models", arguments.model))


def config_of(model: str) -> ModelConfig:
    """Of whatever --model may name: weights that hold it, or a configuration."""
    from bevformer_ros.model.checkpoint import read_checkpoint

    path = model_file(model)
    config = read_checkpoint(path).config if path.suffix == ".safetensors" else load_yaml(ModelConfig, path)
    if config is None:
        raise ValueError(f"{path} holds weights without a configuration; name the configuration")
    return config


def add_model_with_weights(parser: Options, default: str = Settings.model) -> None:
    add_setting(parser, "model", default)
    add_setting(parser, "weights")


def add_settings(parser: Options) -> None:
    """All that the detector can be told where it runs without a node, but for the rig."""
    for name in _OFFLINE:
        add_setting(parser, name)


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Raises ValueError for a value outside its range."""
    return Settings(**{name: getattr(arguments, name) for name in ("rig", *_OFFLINE)})


def add_setting(parser: Options, name: str, default: str | None = None) -> None:
    """One of the node's parameters as an option. default: None for the node's."""
    entry = SETTINGS[name]
    option = f"--{name.replace('_', '-')}"
    if entry.default is False:
        parser.add_argument(option, action="store_true", help=entry.metadata["description"])
        return
    parser.add_argument(
        option,
        type=one_number_or_more if entry.metadata["by_class"] else type(entry.default),
        default=entry.default if default is None else default,
        choices=entry.metadata["choices"] or None,
        metavar="|".join(entry.metadata["choices"]) or type(entry.default).__name__.upper(),
        help=f"{entry.metadata['description']} (default {default or default_text(entry)})",
    )
